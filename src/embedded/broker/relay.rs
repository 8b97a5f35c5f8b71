//! The way of requests and answers between a client and one mock broker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::cluster::Cluster;
use super::faults::{FaultDice, Strike};
use super::frame::{PortRewrites, RequestHead, correlation_of_answer, read_frame};

/// What is to be done with the answer to a request.
enum OnAnswer {
    Rewrite,
    Delay(Duration),
    Cut,
}

/// JoinGroup, SyncGroup: answered when the whole group has joined, when its leader has assigned.
const JOINS: [i16; 2] = [11, 14];

/// Requests of one connection that are not answered yet, as far as they matter. At most as many as a client has in flight.
#[derive(Default)]
struct Pending {
    on_answer: HashMap<i32, OnAnswer>,
    /// While a join waits the connection is never cut: the mock cluster does not notice, and its assertion ends the whole process when the
    /// member joins again.
    joins: HashSet<i32>,
}

/// Takes connections until aborted; they end with it.
pub(super) async fn serve(listener: TcpListener, mock_port: u16, rewrites: Arc<PortRewrites>, dice: Arc<FaultDice>, cluster: Arc<Cluster>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    connections.spawn(connection(client, mock_port, rewrites.clone(), dice.clone(), cluster.clone()));
                }
                // Out of file descriptors, for instance: others must go first.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, mock_port: u16, rewrites: Arc<PortRewrites>, dice: Arc<FaultDice>, cluster: Arc<Cluster>) {
    // A broker that is down refuses; the client sees its connection closed.
    let Ok(mock) = TcpStream::connect(("127.0.0.1", mock_port)).await else { return };
    let _ = client.set_nodelay(true);
    let _ = mock.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_mock, to_mock) = mock.into_split();
    let pending = Mutex::<Pending>::default();
    // The first direction that ends, for whatever reason, ends both: that is what a broken connection is.
    tokio::select! {
        _ = requests(from_client, to_mock, &pending, &dice, &cluster) => {}
        _ = answers(from_mock, to_client, &pending, &rewrites, &dice) => {}
    }
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    pending: &Mutex<Pending>,
    dice: &FaultDice,
    cluster: &Cluster,
) -> std::io::Result<()> {
    let mut frame = Vec::new();
    while read_frame(&mut from, &mut frame).await? {
        let Some(head) = RequestHead::of(&frame) else { return Ok(()) };
        let may_cut = {
            let mut pending = pending.lock();
            if head.answer_names_brokers() {
                pending.on_answer.insert(head.correlation, OnAnswer::Rewrite);
            }
            if JOINS.contains(&head.api) {
                pending.joins.insert(head.correlation);
            }
            pending.joins.is_empty()
        };
        match dice.draw(head.api, may_cut) {
            // Pushed before the request goes on, so that this request (or one of its kind that overtakes it) takes it.
            Some(Strike::Refuse(api, error)) => cluster.request_errors(api, vec![error]).await.map_err(std::io::Error::other)?,
            Some(Strike::CutBefore) => return Ok(()),
            Some(Strike::CutAfter) => {
                pending.lock().on_answer.insert(head.correlation, OnAnswer::Cut);
            }
            Some(Strike::Delay(time)) => {
                pending.lock().on_answer.insert(head.correlation, OnAnswer::Delay(time));
            }
            None => {}
        }
        to.write_all(&frame).await?;
    }
    Ok(())
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    pending: &Mutex<Pending>,
    rewrites: &PortRewrites,
    dice: &FaultDice,
) -> std::io::Result<()> {
    let mut frame = Vec::new();
    while read_frame(&mut from, &mut frame).await? {
        let (what, may_cut) = {
            let mut pending = pending.lock();
            let what = correlation_of_answer(&frame).and_then(|id| {
                pending.joins.remove(&id);
                pending.on_answer.remove(&id)
            });
            (what, pending.joins.is_empty())
        };
        match what {
            Some(OnAnswer::Rewrite) => rewrites.apply(&mut frame),
            Some(OnAnswer::Delay(time)) => tokio::time::sleep(time).await,
            Some(OnAnswer::Cut) if may_cut => return Ok(()),
            Some(OnAnswer::Cut) => dice.spared_commit_answer(),
            None => {}
        }
        to.write_all(&frame).await?;
    }
    Ok(())
}
