//! A worker's reports: what it says of itself, made from its status and sent every few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::exchange::Exchange;
use super::identity::Identity;
use super::rates::Meter;
use super::report::{ConnectorReport, MemoryReport, Note, PartitionReport, VERSION, WorkerReport};
use crate::config::ScalingConfig;
use crate::flow::Clock;
use crate::pipeline::{ConnectorStatus, PartitionStatus};
use crate::telemetry::cpu;

/// The last report must not hold up the end of the process.
const LAST_REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a worker is asked for, at once.
pub struct WorkerLook {
    /// It was told to stop.
    pub leaving: bool,
    /// Its memory.
    pub memory: MemoryReport,
    /// Its connectors.
    pub connectors: Vec<ConnectorStatus>,
    /// The time that all its records so far last at `max_records_per_s`, seconds; `None` without a limit.
    pub paced_s: Option<f64>,
}

/// Makes and sends reports.
pub struct Reporter {
    exchange: Arc<Exchange>,
    look: Box<dyn Fn() -> WorkerLook + Send + Sync>,
    clock: Arc<dyn Clock>,
    interval: Duration,
    trouble: Arc<Mutex<Option<String>>>,
    now: Arc<Notify>,
    maker: ReportMaker,
}

impl Reporter {
    /// A reporter that asks `look` every `report_interval`, and at once when told `now`. Why the last report was not sent stands in
    /// `trouble`.
    pub fn new(
        identity: Identity,
        scaling: &ScalingConfig,
        exchange: Arc<Exchange>,
        clock: Arc<dyn Clock>,
        look: impl Fn() -> WorkerLook + Send + Sync + 'static,
        trouble: Arc<Mutex<Option<String>>>,
        now: Arc<Notify>,
    ) -> Self {
        let maker = ReportMaker::new(identity, scaling, &*clock);
        Self { exchange, look: Box::new(look), clock, interval: scaling.report_interval.get(), trouble, now, maker }
    }

    /// Reports until `stop`, and a last time then, that it leaves. A report that cannot be sent is dropped: the next one says the same.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = tick.tick() => {}
                () = self.now.notified() => {}
            }
            let note = self.note(false);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.send(&note) => {}
            }
        }
        let last = self.note(true);
        if tokio::time::timeout(LAST_REPORT_TIMEOUT, self.send(&last)).await.is_err() {
            tracing::debug!("the last report was not acknowledged in time: others will take this worker for stale");
        }
    }

    fn note(&mut self, leaving: bool) -> Note {
        let look = (self.look)();
        let cpu_s = cpu::kafka_threads_s().unwrap_or_default();
        let now_ms = i64::try_from(self.clock.now_monotonic().as_millis()).unwrap_or(i64::MAX);
        let mut report = self.maker.make(&look, &cpu_s, now_ms, self.clock.now_wall_us() / 1000);
        report.leaving |= leaving;
        Note::Worker(report)
    }

    async fn send(&self, note: &Note) {
        if !self.exchange.is_ready() {
            return; // the view says why
        }
        let sent = self.exchange.report(&self.maker.identity.name, note).await;
        let mut trouble = self.trouble.lock();
        match sent {
            Ok(()) => {
                if trouble.take().is_some() {
                    tracing::info!("reports are sent again");
                }
            }
            Err(error) => {
                let words = error.to_string();
                if trouble.is_none() {
                    tracing::warn!("this worker's report was not sent: {words}; records move on, and the next report is tried");
                }
                *trouble = Some(words);
            }
        }
    }
}

/// Sums over time, turned into rates and shares.
struct ReportMaker {
    identity: Identity,
    fleet: String,
    run: u64,
    number: u64,
    interval_ms: u64,
    window_ms: u64,
    started_ms: i64,
    began_ms: i64,
    /// By connector, topic, partition: records and bytes.
    consumed: HashMap<(String, String, i32), Meter<2>>,
    /// By connector and shard: busy and waiting for the sink, seconds.
    shards: HashMap<(String, usize), Meter<2>>,
    /// By thread: CPU seconds.
    threads: HashMap<u32, Meter<1>>,
    paced: Meter<1>,
}

impl ReportMaker {
    fn new(identity: Identity, scaling: &ScalingConfig, clock: &dyn Clock) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            identity,
            fleet: scaling.fleet_id.clone(),
            run: rand::random(),
            number: 0,
            interval_ms: millis(scaling.report_interval.get()),
            window_ms: millis(scaling.rate_window()),
            started_ms: clock.now_wall_us() / 1000,
            began_ms: i64::try_from(clock.now_monotonic().as_millis()).unwrap_or(0),
            consumed: HashMap::new(),
            shards: HashMap::new(),
            threads: HashMap::new(),
            paced: Meter::default(),
        }
    }

    fn make(&mut self, look: &WorkerLook, cpu_s: &HashMap<u32, f64>, now_ms: i64, wall_ms: i64) -> WorkerReport {
        self.number += 1;
        let (busy, sink_wait) = self.shares(look, cpu_s, now_ms);
        let window_ms = self.window_ms;
        let mut kept = std::mem::take(&mut self.consumed);
        let connectors = look.connectors.iter().map(|connector| ConnectorReport {
            connector: connector.name.clone(),
            state: connector.state.as_str().to_owned(),
            message: connector.message.clone(),
            freshness_p50_ms: connector.freshness.map(|freshness| freshness.p50_ms),
            freshness_p99_ms: connector.freshness.map(|freshness| freshness.p99_ms),
            partitions: connector
                .partitions
                .iter()
                .map(|partition| {
                    let key = (connector.name.clone(), partition.topic.clone(), partition.partition);
                    let mut meter = kept.remove(&key).unwrap_or_default();
                    meter.add(now_ms, [partition.records as f64, partition.bytes as f64], window_ms);
                    let report = partition_report(partition, meter.per_second());
                    self.consumed.insert(key, meter);
                    report
                })
                .collect(),
        });
        let connectors = connectors.collect();
        WorkerReport {
            v: VERSION,
            fleet: self.fleet.clone(),
            worker: self.identity.name.clone(),
            ordinal: self.identity.ordinal,
            run: self.run,
            number: self.number,
            interval_ms: self.interval_ms,
            started_ms: self.started_ms,
            at_ms: wall_ms,
            leaving: look.leaving,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            window_ms: self.window_ms.min(u64::try_from(now_ms - self.began_ms).unwrap_or(0)),
            busy_fraction: busy,
            sink_wait_fraction: sink_wait,
            memory: look.memory,
            connectors,
        }
    }

    /// The share of the window in which the busiest thread worked, and in which the most held-up shard waited for the sink.
    fn shares(&mut self, look: &WorkerLook, cpu_s: &HashMap<u32, f64>, now_ms: i64) -> (Option<f64>, Option<f64>) {
        let window_ms = self.window_ms;
        let mut shards = std::mem::take(&mut self.shards);
        let (mut busy, mut sink_wait) = (None, None);
        let most = |most: &mut Option<f64>, share: f64| *most = Some(most.unwrap_or(0.0).max(share.clamp(0.0, 1.0)));
        for connector in &look.connectors {
            for (index, work) in connector.shards.iter().enumerate() {
                let key = (connector.name.clone(), index);
                let mut meter = shards.remove(&key).unwrap_or_default();
                meter.add(now_ms, [work.busy_us as f64 / 1e6, work.sink_wait_us as f64 / 1e6], window_ms);
                if let Some([worked, waited]) = meter.per_second() {
                    most(&mut busy, worked);
                    most(&mut sink_wait, waited);
                }
                self.shards.insert(key, meter);
            }
        }
        self.threads.retain(|thread, _| cpu_s.contains_key(thread));
        for (thread, used_s) in cpu_s {
            let meter = self.threads.entry(*thread).or_default();
            meter.add(now_ms, [*used_s], window_ms);
            if let (Some(_), Some([share])) = (busy, meter.per_second()) {
                most(&mut busy, share);
            }
        }
        if let Some(paced_s) = look.paced_s {
            self.paced.add(now_ms, [paced_s], window_ms);
            if let (Some(_), Some([share])) = (busy, self.paced.per_second()) {
                most(&mut busy, share);
            }
        }
        (busy, sink_wait)
    }
}

fn partition_report(partition: &PartitionStatus, per_second: Option<[f64; 2]>) -> PartitionReport {
    PartitionReport {
        topic: partition.topic.clone(),
        partition: partition.partition,
        position: (partition.records > 0 || partition.committed.is_some()).then_some(partition.position),
        committed: partition.committed,
        lag_records: partition.lag_records,
        records: partition.records,
        bytes: partition.bytes,
        records_per_s: per_second.map(|[records, _]| records),
        bytes_per_s: per_second.map(|[_, bytes]| bytes),
        hold: partition.hold.as_ref().map(|hold| hold.cause.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::ManualClock;
    use crate::pipeline::{ConnectorState, ShardWork};

    fn look(records: u64, busy_us: u64, sink_wait_us: u64) -> WorkerLook {
        let partition = PartitionStatus {
            topic: "t".to_owned(),
            partition: 3,
            position: 10,
            records,
            bytes: records * 100,
            committed: None,
            lag_records: Some(7),
            resting_since_ms: None,
            stream: None,
            hold: None,
        };
        let connector = ConnectorStatus {
            name: "c".to_owned(),
            state: ConnectorState::Running,
            since_ms: 0,
            message: None,
            partitions: vec![partition],
            tables: Vec::new(),
            freshness: None,
            shards: vec![ShardWork::default(), ShardWork { busy_us, sink_wait_us }],
            dead_letters: 0,
            skipped: 0,
        };
        WorkerLook { leaving: false, memory: MemoryReport::default(), connectors: vec![connector], paced_s: None }
    }

    fn maker() -> ReportMaker {
        let identity = Identity { name: "w-1".to_owned(), ordinal: Some(1) };
        ReportMaker::new(identity, &ScalingConfig::default(), &ManualClock::at(0))
    }

    #[test]
    fn rates_and_shares_are_over_the_window() {
        let mut maker = maker();
        let first = maker.make(&look(0, 0, 0), &HashMap::new(), 0, 5);
        assert_eq!((first.busy_fraction, first.connectors[0].partitions[0].records_per_s), (None, None), "nothing is known yet, not zero");
        for second in 1..=60u64 {
            let threads = HashMap::from([(9, second as f64 * 0.4)]);
            // 50 records a second, a shard busy for 300 ms of each, waiting for the sink for 600 ms.
            let now_ms = i64::try_from(second * 1000).unwrap();
            let report = maker.make(&look(second * 50, second * 300_000, second * 600_000), &threads, now_ms, 5);
            let partition = &report.connectors[0].partitions[0];
            assert_eq!((partition.records_per_s, partition.bytes_per_s), (Some(50.0), Some(5000.0)));
            assert!((report.sink_wait_fraction.unwrap() - 0.6).abs() < 1e-6);
            let busiest = if second == 1 { 0.3 } else { 0.4 };
            assert!(
                (report.busy_fraction.unwrap() - busiest).abs() < 1e-6,
                "librdkafka's thread is the busiest: {:?}",
                report.busy_fraction
            );
            assert_eq!(report.window_ms, (second * 1000).min(15_000));
        }
    }

    #[test]
    fn a_paced_worker_is_as_busy_as_its_limit_is_used() {
        let mut maker = maker();
        for second in 0..5i32 {
            let paced = WorkerLook { paced_s: Some(f64::from(second) * 0.95), ..look(0, 1000, 0) };
            let report = maker.make(&paced, &HashMap::new(), i64::from(second) * 1000, 0);
            assert!(second == 0 || (report.busy_fraction.unwrap() - 0.95).abs() < 1e-6, "{:?}", report.busy_fraction);
        }
    }

    #[test]
    fn what_is_no_longer_owned_is_forgotten() {
        let mut maker = maker();
        maker.make(&look(5, 0, 0), &HashMap::from([(4, 1.0)]), 0, 0);
        assert_eq!((maker.consumed.len(), maker.shards.len(), maker.threads.len()), (1, 2, 1));
        let none = WorkerLook { connectors: Vec::new(), ..look(0, 0, 0) };
        maker.make(&none, &HashMap::new(), 1000, 0);
        assert_eq!((maker.consumed.len(), maker.shards.len(), maker.threads.len()), (0, 0, 0));
    }
}
