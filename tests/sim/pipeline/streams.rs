//! Write streams of type COMMITTED, played: rows land at their offset or not at all, and never after the stream's end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use millrace::bigquery::{Append, AppendFailure, ErrorClass, StreamLine, WriteStreams};
use millrace::table::TableName;
use parking_lot::Mutex;

use super::bigquery::{Client, failure};
use super::mutants::Mutant;

#[derive(Default)]
struct Stream {
    rows: u64,
    ended: bool,
}

/// All streams, by name.
#[derive(Default)]
pub struct Streams(Mutex<BTreeMap<String, Stream>>);

impl Client {
    /// A call that takes its time, and whose answer may be lost. `None`: nobody hears whether it was done.
    async fn call<T: Send + 'static>(&self, act: impl FnOnce(&Client) -> T + Send + 'static) -> Option<T> {
        let world = self.scene.world.clone();
        world.pass(self.way()).await;
        let flaky = self.troubles().flaky > world.now() || self.troubles().dead > world.now();
        if flaky && self.scene.warehouse.chance(0.2) {
            return None;
        }
        let done = act(self);
        world.pass(self.way()).await;
        (!flaky || !self.scene.warehouse.chance(0.2)).then_some(done)
    }
}

#[async_trait]
impl WriteStreams for Client {
    async fn create(&self, table: &TableName) -> Result<Arc<str>, AppendFailure> {
        let name = format!("{}/streams/", table.default_stream());
        let create = move |client: &Client| {
            let mut streams = client.scene.warehouse.streams.0.lock();
            let name = format!("{name}{}", streams.len());
            streams.insert(name.clone(), Stream::default());
            Arc::from(name)
        };
        self.call(create).await.ok_or_else(|| failure(ErrorClass::Transient, false))
    }

    async fn finalize(&self, stream: &str) -> Result<u64, AppendFailure> {
        let name = stream.to_owned();
        let finalize = move |client: &Client| {
            let mut streams = client.scene.warehouse.streams.0.lock();
            let found = streams.get_mut(&name).ok_or_else(|| failure(ErrorClass::StreamNotFound, false))?;
            found.ended |= client.scene.mutant != Mutant::NoFinalize;
            client.scene.world.note(|| format!("process {}: ends {name} with {} rows", client.process, found.rows));
            client.scene.oracle.see(|seen| seen.takeovers += 1);
            Ok(found.rows)
        };
        self.call(finalize).await.unwrap_or_else(|| Err(failure(ErrorClass::Transient, false)))
    }

    fn open(&self, stream: &Arc<str>) -> Box<dyn StreamLine> {
        Box::new(Line { client: self.clone(), stream: stream.to_string(), arrives_at: Duration::ZERO })
    }
}

/// A connection: what is sent over it arrives in order.
struct Line {
    client: Client,
    stream: String,
    arrives_at: Duration,
}

/// What becomes of an append that arrived.
fn arrive(client: &Client, stream: &str, append: &Append, offset: u64) -> Result<(), AppendFailure> {
    let scene = &client.scene;
    {
        let streams = scene.warehouse.streams.0.lock();
        let found = streams.get(stream).ok_or_else(|| failure(ErrorClass::StreamNotFound, false))?;
        if found.ended {
            return Err(failure(ErrorClass::StreamFinalized, false));
        }
        match offset.cmp(&found.rows) {
            _ if scene.mutant == Mutant::NumbersIgnored => {}
            std::cmp::Ordering::Less => return Err(failure(ErrorClass::OffsetAlreadyExists, false)),
            std::cmp::Ordering::Greater => return Err(failure(ErrorClass::OffsetOutOfRange, false)),
            std::cmp::Ordering::Equal => {}
        }
    }
    scene.warehouse.land(scene, client.process, scene.warehouse.any_server(), append)?;
    if let Some(found) = scene.warehouse.streams.0.lock().get_mut(stream) {
        found.rows += u64::from(append.row_count);
    }
    Ok(())
}

#[async_trait]
impl StreamLine for Line {
    async fn append(&mut self, append: Append, offset: u64) -> BoxFuture<'static, Result<(), AppendFailure>> {
        let (client, stream) = (self.client.clone(), self.stream.clone());
        let world = client.scene.world.clone();
        if let Err(kept) = client.leave(&append).await {
            return async move { Err(kept) }.boxed();
        }
        let troubles = client.troubles();
        let (dead, flaky) = (troubles.dead > world.now(), troubles.flaky > world.now());
        let way = if dead { troubles.dead.saturating_sub(world.now()) } else { client.way() };
        self.arrives_at = self.arrives_at.max(world.now() + way);
        let arrives_in = self.arrives_at - world.now();
        let lost = (dead || flaky) && client.scene.warehouse.chance(0.25);
        let never = lost && client.scene.warehouse.chance(0.3);
        let (answer, answered) = tokio::sync::oneshot::channel();
        if !never {
            let client = client.clone();
            world.after(arrives_in, move |_| {
                let outcome = arrive(&client, &stream, &append, offset);
                client.scene.oracle.see(|seen| seen.refused += u64::from(outcome.is_err()));
                if !lost {
                    answer.send(outcome).unwrap_or_default();
                }
            });
        }
        async move {
            if lost {
                world.pass(client.way()).await;
                client.scene.oracle.see(|seen| seen.lost_answers += 1);
                return client.unanswered(failure(ErrorClass::Transient, true));
            }
            let outcome = answered.await.unwrap_or_else(|_| Err(failure(ErrorClass::Transient, true)));
            world.pass(client.way()).await;
            outcome
        }
        .boxed()
    }
}
