//! Faults at random: one at a time, with a pause in between, so that each is felt and each ends.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rig::fleet::Fleet;
use super::rig::kafka::Kafka;
use super::rig::process::Process;
use super::rig::sink::Sink;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The sink takes requests and answers nothing.
    Silent,
    /// Every RPC ends with UNAVAILABLE.
    Unavailable,
    /// The broker stands still.
    BrokerStopped,
    /// A second worker joins, takes half the partitions, drains and leaves.
    SecondWorker,
    /// A second worker joins and is killed.
    SecondWorkerKilled,
    /// The worker looks at its connector files.
    Hangup,
}

const FAULTS: [Fault; 6] =
    [Fault::Silent, Fault::Unavailable, Fault::BrokerStopped, Fault::SecondWorker, Fault::SecondWorkerKilled, Fault::Hangup];

/// Draws faults, begins them and ends them.
pub struct Faults<'a> {
    rng: ChaCha8Rng,
    kafka: &'a Kafka,
    sink: &'a Sink,
    fleet: &'a Fleet,
    /// The one that lasts, and until when.
    now: Option<(Fault, Instant)>,
    second: Option<Process>,
    next_at: Instant,
    counts: [u64; FAULTS.len()],
}

impl<'a> Faults<'a> {
    pub fn new(seed: u64, kafka: &'a Kafka, sink: &'a Sink, fleet: &'a Fleet) -> Self {
        let next_at = Instant::now() + Duration::from_secs(15);
        Self { rng: ChaCha8Rng::seed_from_u64(seed), kafka, sink, fleet, now: None, second: None, next_at, counts: [0; FAULTS.len()] }
    }

    /// Called every few seconds: ends what is over, begins what is due. `left` is the time until the end.
    pub fn turn(&mut self, worker: &Process, left: Duration) -> Result<()> {
        if self.now.is_some_and(|(_, until)| Instant::now() >= until) {
            self.end_present()?;
        }
        if self.now.is_none() && Instant::now() >= self.next_at && left > Duration::from_secs(60) {
            let drawn = self.rng.random_range(0..FAULTS.len());
            let (fault, seconds) = (FAULTS[drawn], self.rng.random_range(3..25));
            self.counts[drawn] += 1;
            self.begin(fault, worker)?;
            self.now = Some((fault, Instant::now() + Duration::from_secs(seconds)));
        }
        Ok(())
    }

    /// Ends what lasts, and says what there was.
    pub fn end(&mut self) -> Result<()> {
        self.end_present()?;
        let all: Vec<String> = FAULTS.iter().zip(self.counts).map(|(fault, count)| format!("{fault:?} {count}")).collect();
        println!("faults: {}", all.join(", "));
        Ok(())
    }

    fn begin(&mut self, fault: Fault, worker: &Process) -> Result<()> {
        match fault {
            Fault::Silent => self.sink.silent(true),
            Fault::Unavailable => self.sink.unavailable(true),
            Fault::BrokerStopped => self.kafka.process().signal("STOP"),
            Fault::SecondWorker | Fault::SecondWorkerKilled => {
                self.second = Some(self.fleet.second()?.start()?);
                Ok(())
            }
            Fault::Hangup => worker.signal("HUP"),
        }
    }

    fn end_present(&mut self) -> Result<()> {
        let Some((fault, _)) = self.now.take() else { return Ok(()) };
        self.next_at = Instant::now() + Duration::from_secs(self.rng.random_range(5..20));
        match fault {
            Fault::Silent => self.sink.silent(false),
            Fault::Unavailable => self.sink.unavailable(false),
            Fault::BrokerStopped => self.kafka.process().signal("CONT"),
            Fault::SecondWorker => match self.second.take() {
                Some(mut second) => second.terminate(Duration::from_secs(60)),
                None => Ok(()),
            },
            Fault::SecondWorkerKilled => {
                // Dropping a process kills it.
                self.second = None;
                Ok(())
            }
            Fault::Hangup => Ok(()),
        }
    }
}
