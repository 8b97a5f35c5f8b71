//! The writer of one partition in one assignment: announces appends, sends them in order once that is committed, takes their answers.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use crate::bigquery::{Append, AppendFailure, ErrorClass, StreamLine};
use crate::flow::HoldCause;
use crate::pipeline::batch::AppendJob;
use crate::pipeline::delivery::DeliveryContext;
use crate::pipeline::events::{Outcome, ShardEvent, ShardHandle, ShareOutcome};
use crate::pipeline::progress::PartitionProgress;
use crate::pipeline::remedy::Backoffs;
use crate::pipeline::trouble::panic_words;
use crate::pipeline::worker::TableEntry;
use crate::pipeline::writer::WriterHandle;
use crate::watchdog;

use super::ExactParts;
use super::window::{Entry, State, Window};

/// Jobs that wait for a place in the window; a full queue stops the shard from taking more of the partition.
const QUEUE_MAX: usize = 2;

/// What a partition's writer works with.
pub struct StreamWriterParts {
    /// Table, fence, dead letters, tasks, metrics: as a delivery has them.
    pub context: Arc<DeliveryContext>,
    /// Streams, and what the user chose.
    pub exact: Arc<ExactParts>,
    /// The table.
    pub table: Arc<TableEntry>,
    /// The assignment.
    pub progress: Arc<PartitionProgress>,
    /// The partition's slot in its shard.
    pub slot: u32,
    /// Who wants to know.
    pub shard: ShardHandle,
    /// Every record below this offset is finished.
    pub base_next: i64,
}

/// Starts the writer's task. It ends when its handle is dropped or the assignment is over; what it has not sent then is never sent.
pub fn start(parts: StreamWriterParts) -> WriterHandle {
    let (jobs, receiver) = mpsc::channel(QUEUE_MAX);
    let (tasks, trouble) = (parts.context.shared.tasks.clone(), parts.context.shared.trouble.clone());
    let partition = parts.progress.partition.clone();
    let beat = watchdog::watch(format!("the stream writer of {partition} to {}", parts.table.name));
    let writer = StreamWriter::new(parts, receiver);
    tasks.spawn(Box::pin(beat.polls(async move {
        if let Err(panic) = AssertUnwindSafe(writer.run()).catch_unwind().await {
            let words = panic_words(panic.as_ref());
            trouble.fail(format!("the stream writer of {partition} panicked ({words}): please report it; restart the worker"));
        }
    })));
    WriterHandle { jobs }
}

type Answer = (u64, Instant, Result<(), AppendFailure>);

/// See [`start`]. What is done about failures stands in `mend.rs`.
pub(super) struct StreamWriter {
    pub(super) parts: StreamWriterParts,
    pub(super) window: Window,
    jobs: mpsc::Receiver<AppendJob>,
    pub(super) line: Option<Box<dyn StreamLine>>,
    in_flight: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// Something failed: nothing more is sent before all answers are there and it is mended.
    pub(super) troubled: bool,
    /// Jobs of this run of the partition and of earlier ones are not sent: rows before theirs were given up.
    pub(super) refused_run: Option<u64>,
    pub(super) backoffs: Backoffs,
    /// The partition is shown as held because the brokers refuse its intents.
    pub(super) intents_refused: bool,
}

impl StreamWriter {
    fn new(parts: StreamWriterParts, jobs: mpsc::Receiver<AppendJob>) -> Self {
        let seed = parts.context.shared.tasks.random();
        Self {
            window: Window::new(parts.base_next),
            parts,
            jobs,
            line: None,
            in_flight: FuturesUnordered::new(),
            troubled: false,
            refused_run: None,
            backoffs: Backoffs::new(seed),
            intents_refused: false,
        }
    }

    async fn run(mut self) {
        while !self.parts.progress.is_gone() {
            // Each time, and not only when it is told of a change: a wait before something is sent again takes that up as well.
            self.show_refusal().await;
            if self.parts.progress.is_draining() {
                self.give_back().await;
            } else if self.troubled && self.in_flight.is_empty() {
                self.mend().await;
                continue;
            } else if !self.troubled && !self.send_released().await {
                continue;
            }
            let progress = self.parts.progress.clone();
            let takes = !self.troubled && !progress.is_draining() && self.window.has_room();
            tokio::select! {
                // In order: a seeded run must repeat itself. Answers first, so that they free places for jobs.
                biased;
                Some((id, sent_at, answer)) = self.in_flight.next(), if !self.in_flight.is_empty() => self.answered(id, sent_at, answer).await,
                () = progress.published.changed() => {}
                job = self.jobs.recv(), if takes => match job {
                    Some(job) => self.admit(job).await,
                    None => return,
                },
            }
        }
    }

    /// Whether nothing new is to be sent.
    pub(super) fn ends(&self) -> bool {
        self.parts.progress.is_gone() || self.parts.progress.is_draining()
    }

    async fn admit(&mut self, job: AppendJob) {
        if self.refused_run.is_some_and(|refused| job.run <= refused) {
            // Rows before these were given up: whoever goes on behind these would leave those out.
            let cause = HoldCause::UnknownError;
            return self.abandon_job(&job, (cause, "rows before these are read again".to_owned())).await;
        }
        self.window.push(job);
        if self.window.stream.is_some() {
            self.announce();
        }
    }

    /// Has the appends' intents committed.
    pub(super) fn announce(&mut self) {
        let version = self.publish();
        for entry in &mut self.window.entries {
            entry.version.get_or_insert(version);
        }
        self.parts.progress.published.want(version);
        self.parts.exact.bell.ring();
    }

    /// Commits carry the window as it is from now on; none is asked for.
    pub(super) fn publish(&self) -> u64 {
        self.parts.progress.published.set(Some(self.window.intents().encode()))
    }

    /// Sends what is announced, committed, and not sent yet, in order. `false`: something changed, look again.
    async fn send_released(&mut self) -> bool {
        if self.window.entries.iter().all(|entry| !matches!(entry.state, State::Waiting)) {
            return true;
        }
        if self.window.stream.is_none() {
            return self.begin_stream().await;
        }
        if let Some(held) = self.parts.context.health.held() {
            self.troubled = true;
            return match self.in_flight.is_empty() {
                true => {
                    self.give_up(held.cause, held.message).await;
                    false
                }
                false => true,
            };
        }
        let committed = self.parts.progress.published.committed();
        for index in 0..self.window.entries.len() {
            let Some(entry) = self.window.entries.get(index) else { break };
            match entry.state {
                State::Waiting if entry.version.is_some_and(|version| version <= committed) && !self.ends() => self.send(index).await,
                State::Waiting => break,
                State::Sent | State::Landed | State::Failed(_) => {}
            }
        }
        true
    }

    async fn send(&mut self, index: usize) {
        self.parts.context.shared.fence.beat(self.parts.context.shared.tasks.now());
        let progress = self.parts.progress.clone();
        self.parts.context.shared.fence.wait_down(move || progress.is_gone() || progress.is_draining()).await;
        let row = self.window.row_of(index);
        let (Some(stream), Some(entry)) = (self.window.stream.clone(), self.window.entries.get_mut(index)) else { return };
        if self.parts.progress.is_gone() || self.parts.progress.is_draining() {
            return;
        }
        entry.state = State::Sent;
        let id = entry.id;
        let append = Append {
            table: self.parts.table.name.clone(),
            layout: entry.job.rows.layout.clone(),
            rows: entry.part.rows.clone(),
            row_count: entry.rows(),
            gate: Some(entry.job.gate(&self.parts.context.shared.fence)),
        };
        self.parts.table.metrics.appends.increment(1);
        let sent_at = self.parts.context.shared.tasks.now();
        let line = self.line.get_or_insert_with(|| self.parts.exact.streams.open(&stream));
        let answer = line.append(append, row).await;
        self.in_flight.push(async move { (id, sent_at, answer.await) }.boxed());
    }

    async fn answered(&mut self, id: u64, sent_at: Instant, answer: Result<(), AppendFailure>) {
        let table = self.parts.table.clone();
        let Some(entry) = self.window.find(id) else { return };
        match answer {
            Ok(()) => {
                entry.state = State::Landed;
                table.metrics.append_latency.record(self.parts.context.shared.tasks.now().duration_since(sent_at).as_secs_f64());
                self.backoffs.reset();
                self.settle_landed().await;
            }
            Err(failure) => {
                if failure.class != ErrorClass::Withheld {
                    table.metrics.error(failure.class.as_str());
                    table.set_last_error(Some(failure.to_string()));
                }
                entry.in_doubt |= failure.maybe_durable;
                entry.state = State::Failed(failure);
                self.troubled = true;
            }
        }
    }

    /// Tells the shard of appends that have landed, and of how far the partition is finished with them.
    pub(super) async fn settle_landed(&mut self) {
        let mut settled = false;
        while let Some(entry) = self.window.pop_landed() {
            settled = true;
            let whole = matches!(entry.part.indices, crate::pipeline::part::Indices::All(_));
            self.parts.context.landed(&entry.job, u64::from(entry.rows()), entry.part.rows.len() as u64, whole);
            self.tell(&entry, Ended::Finished, None).await;
        }
        if settled {
            self.publish();
        }
    }

    /// Tells the shard how an append's rows ended.
    pub(super) async fn tell(&mut self, entry: &Entry, ended: Ended, hold: Option<(HoldCause, String)>) {
        let counts = entry.rows_by_share();
        let shares = entry.job.shares.iter().zip(counts).filter(|(_, rows)| *rows > 0).map(|(share, rows)| ShareOutcome {
            share: *share,
            finished: if ended == Ended::Finished { rows } else { 0 },
            abandoned: if ended == Ended::Abandoned { rows } else { 0 },
            rejected: 0,
        });
        let outcome =
            Outcome { table: Some(self.parts.table.clone()), shares: shares.collect(), hold, landed_below: Some(self.window.base_next) };
        // A shard that has ended wants no answer: whoever owns the partition next finds out what landed.
        self.parts.shard.send(ShardEvent::Outcome(outcome)).await;
    }

    async fn abandon_job(&mut self, job: &AppendJob, hold: (HoldCause, String)) {
        let shares = job.shares.iter().map(|share| ShareOutcome { share: *share, finished: 0, abandoned: share.rows, rejected: 0 });
        let outcome = Outcome {
            table: Some(self.parts.table.clone()),
            shares: shares.collect(),
            hold: Some(hold),
            landed_below: Some(self.window.base_next),
        };
        self.parts.shard.send(ShardEvent::Outcome(outcome)).await;
    }

    /// Gives up everything that waits: its rows are read again from where the partition is finished.
    pub(super) async fn abandon_all(&mut self, cause: HoldCause, message: &str) {
        while let Some(entry) = self.window.entries.pop_back() {
            self.refused_run = self.refused_run.max(Some(entry.job.run));
            self.tell(&entry, Ended::Abandoned, Some((cause, message.to_owned()))).await;
        }
    }

    /// A revocation: nothing more is sent; what is on its way is awaited. The next owner learns from the intents what may have landed.
    async fn give_back(&mut self) {
        const WHY: &str = "the partition goes to another worker";
        while let Ok(job) = self.jobs.try_recv() {
            self.abandon_job(&job, (HoldCause::UnknownError, WHY.to_owned())).await;
        }
        let mut back = false;
        while let Some(entry) = self.window.pop_unsent() {
            back = true;
            self.tell(&entry, Ended::Abandoned, Some((HoldCause::UnknownError, WHY.to_owned()))).await;
        }
        if back {
            self.publish();
        }
        if self.in_flight.is_empty() && !self.window.entries.is_empty() {
            // In doubt: it stays in the intents.
            self.abandon_all(HoldCause::UnknownError, WHY).await;
        }
    }
}

/// How an append's rows ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Durable.
    Finished,
    /// To be read again.
    Abandoned,
}
