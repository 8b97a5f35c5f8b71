//! What a leader remembers of each partition between two looks, and what it makes of the offsets: pure.

use std::collections::HashMap;

use crate::config::StartAt;
use crate::fleet::{LiveWorker, PartitionMeasure};
use crate::kafka::PartitionOffsets;
use crate::record::TopicPartition;
use crate::scaling::{Behind, EndHistory};

/// An end that stands still below the high watermark for this long is held by an open transaction; shorter ones are everyday.
const OPEN_TRANSACTION_MS: i64 = 10_000;

/// Commit and end must stand for so long before it is asked whether anything lies between them.
const DOUBT_AFTER_MS: i64 = 3_000;
/// How often that is asked for one partition.
const DOUBT_EVERY_MS: i64 = 15_000;

/// One partition's past.
#[derive(Debug, Default)]
pub(super) struct Track {
    ends: EndHistory,
    commits: EndHistory,
    sampled_bytes: Option<f64>,
    /// When it was sampled, and where it ended then.
    pub sampled_at: Option<(i64, i64)>,
    /// A committed offset, and the end up to which nothing is there to read behind it.
    finished: Option<(i64, i64)>,
    /// When that was last asked.
    asked_at_ms: Option<i64>,
    /// Since when the high watermark has been above the end while the end stands.
    open_since_ms: Option<i64>,
}

/// What the workers say of a partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub owner: Option<String>,
    pub lag_records: Option<i64>,
    pub records: u64,
    pub bytes: u64,
    pub records_per_s: Option<f64>,
    pub bytes_per_s: Option<f64>,
}

/// What one look saw of a partition.
pub(super) struct Seen<'a> {
    pub now_ms: i64,
    /// Rates are over this long.
    pub window_ms: i64,
    pub offsets: &'a PartitionOffsets,
    /// The high watermark, where its leader said it.
    pub high: Option<i64>,
    pub told: &'a Told,
    /// Where the group begins without a commit.
    pub start: StartAt,
}

/// What live workers say of a connector's partitions.
pub(super) fn told(live: &[LiveWorker], connector: &str) -> HashMap<TopicPartition, Told> {
    let mut all = HashMap::new();
    for worker in live {
        for of in worker.report.connectors.iter().filter(|of| of.connector == connector) {
            for partition in &of.partitions {
                let told = Told {
                    owner: Some(worker.report.worker.clone()),
                    lag_records: partition.lag_records,
                    records: partition.records,
                    bytes: partition.bytes,
                    records_per_s: partition.records_per_s,
                    bytes_per_s: partition.bytes_per_s,
                };
                all.insert(TopicPartition::new(partition.topic.as_str(), partition.partition), told);
            }
        }
    }
    all
}

impl Track {
    /// The last records of the partition have this mean size (`None`: none was found), when it ended at `end`.
    pub fn sampled(&mut self, now_ms: i64, end: i64, mean_bytes: Option<f64>) {
        self.sampled_at = Some((now_ms, end));
        self.sampled_bytes = mean_bytes.or(self.sampled_bytes);
    }

    /// The range behind the commit that may hold nothing to read (markers, aborted records), when it is time to look: something seems to
    /// lag, and neither commit nor end has moved for a while.
    pub fn doubtful(&mut self, now_ms: i64, offsets: &PartitionOffsets) -> Option<(i64, i64)> {
        let (end, committed) = (offsets.end?, offsets.committed?);
        let from = committed.max(offsets.low.unwrap_or(0));
        let stands = |history: &EndHistory| history.unchanged_since_ms().is_some_and(|since| now_ms - since >= DOUBT_AFTER_MS);
        let known = self.finished == Some((committed, end)) || self.asked_at_ms.is_some_and(|at| now_ms - at < DOUBT_EVERY_MS);
        if known || from >= end || !stands(&self.ends) || !stands(&self.commits) {
            return None;
        }
        self.asked_at_ms = Some(now_ms);
        Some((from, end))
    }

    /// Nothing is there to read from the commit up to `end`.
    pub fn finished(&mut self, committed: i64, end: i64) {
        self.finished = Some((committed, end));
    }

    /// Takes in what was seen, and says what it means.
    pub fn measure(&mut self, seen: &Seen<'_>) -> PartitionMeasure {
        let Seen { now_ms, window_ms, offsets, high, told, start } = *seen;
        if let Some(end) = offsets.end {
            self.ends.add(now_ms, end);
            let open = high.is_some_and(|high| high > end) && self.ends.unchanged_since_ms().is_some_and(|since| since < now_ms);
            self.open_since_ms = if open { self.open_since_ms.or_else(|| self.ends.unchanged_since_ms()) } else { None };
        }
        if let Some(committed) = offsets.committed {
            self.commits.add(now_ms, committed);
        }
        let produced = offsets.end.and_then(|_| self.ends.produced_per_s(now_ms, window_ms));
        let consumed = told.records_per_s.or_else(|| offsets.committed.and_then(|_| self.commits.produced_per_s(now_ms, window_ms)));
        let bytes_per_record = mean_bytes(told).or(self.sampled_bytes);
        let (lag_records, behind) = self.lag(now_ms, offsets, told, start);
        let bytes = |records: Option<f64>| records.zip(bytes_per_record).map(|(records, bytes)| records * bytes);
        PartitionMeasure {
            topic: offsets.partition.topic.to_string(),
            partition: offsets.partition.partition,
            owner: told.owner.clone(),
            end_offset: offsets.end,
            high_watermark: high,
            committed_offset: offsets.committed,
            lag_records,
            lag_bytes: bytes(lag_records.map(|lag| lag as f64)),
            lag_ms: behind.map(|behind| self.since(behind, lag_records, produced)),
            lag_at_least: behind.is_some_and(|behind| behind.at_least),
            produced_records_per_s: produced,
            produced_bytes_per_s: bytes(produced),
            consumed_records_per_s: consumed,
            consumed_bytes_per_s: told.bytes_per_s.or_else(|| bytes(consumed)),
            bytes_per_record,
            open_transaction_ms: self.open_since_ms.map(|since| now_ms - since).filter(|open| *open >= OPEN_TRANSACTION_MS),
        }
    }

    /// The lag in records, and how far back the first of them is.
    fn lag(&self, now_ms: i64, offsets: &PartitionOffsets, told: &Told, start: StartAt) -> (Option<i64>, Option<Behind>) {
        let Some(end) = offsets.end else { return (None, None) };
        let low = offsets.low.unwrap_or(0);
        let position = match (offsets.committed, start) {
            // What retention deleted is lost, not late; a commit above the end is of a topic that was made again.
            (Some(committed), _) => match self.finished {
                Some((of, read_to)) if of == committed => read_to.max(low),
                _ => committed.max(low),
            },
            (None, StartAt::Earliest) => low,
            // Its owner began at the end of that time, and knows where that was; nobody's partition will begin at its end.
            (None, StartAt::Latest) => end - told.lag_records.unwrap_or(0),
        };
        (Some((end - position).max(0)), self.ends.behind(now_ms, position))
    }

    /// Milliseconds; where the offset is older than what is remembered, the time in which so many records are produced now, if that is
    /// more.
    fn since(&self, behind: Behind, lag_records: Option<i64>, produced_per_s: Option<f64>) -> i64 {
        let by_rate = lag_records.zip(produced_per_s.filter(|rate| *rate > 0.0)).map(|(lag, rate)| (lag as f64 / rate * 1000.0) as i64);
        if behind.at_least { behind.ms.max(by_rate.unwrap_or(0)) } else { behind.ms }
    }
}

/// The mean size of the records that the owner took in its window, else of all that it took.
fn mean_bytes(told: &Told) -> Option<f64> {
    match (told.bytes_per_s, told.records_per_s) {
        (Some(bytes), Some(records)) if records >= 1.0 => Some(bytes / records),
        _ => (told.records > 0).then(|| told.bytes as f64 / told.records as f64),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn offsets(low: i64, end: i64, committed: Option<i64>) -> PartitionOffsets {
        PartitionOffsets { partition: TopicPartition::new("t", 0), low: Some(low), end: Some(end), committed }
    }

    fn look(track: &mut Track, second: i64, offsets: &PartitionOffsets, high: i64) -> PartitionMeasure {
        let (told, start) = (&Told::default(), StartAt::Earliest);
        track.measure(&Seen { now_ms: second * 1000, window_ms: 15_000, offsets, high: Some(high), told, start })
    }

    /// A look at this millisecond, without a high watermark.
    fn look_told(track: &mut Track, now_ms: i64, offsets: &PartitionOffsets, told: &Told, start: StartAt) -> PartitionMeasure {
        track.measure(&Seen { now_ms, window_ms: 15_000, offsets, high: None, told, start })
    }

    #[test]
    fn lag_in_records_bytes_and_seconds() {
        let mut track = Track::default();
        look(&mut track, 0, &offsets(0, 1000, Some(1000)), 1000);
        track.sampled(0, 1000, Some(120.0));
        look(&mut track, 5, &offsets(0, 1500, Some(1000)), 1500);
        let measure = look(&mut track, 10, &offsets(0, 2000, Some(1250)), 2000);
        assert_eq!((measure.lag_records, measure.lag_bytes, measure.lag_ms), (Some(750), Some(90_000.0), Some(7_500)));
        assert_eq!((measure.produced_records_per_s, measure.produced_bytes_per_s), (Some(100.0), Some(12_000.0)));
        assert_eq!(measure.consumed_records_per_s, Some(25.0), "nobody reports it: by its commits");
        assert!(!measure.lag_at_least && measure.open_transaction_ms.is_none());
    }

    #[test]
    fn the_owners_word_counts_for_consumption_and_size() {
        let told = Told { owner: Some("w".to_owned()), records_per_s: Some(10.0), bytes_per_s: Some(2_000.0), ..Told::default() };
        let measure = look_told(&mut Track::default(), 0, &offsets(0, 10, Some(5)), &told, StartAt::Earliest);
        assert_eq!((measure.bytes_per_record, measure.consumed_bytes_per_s), (Some(200.0), Some(2_000.0)));
        assert_eq!((measure.owner.as_deref(), measure.produced_records_per_s), (Some("w"), None), "one look has no rate");
    }

    #[test]
    fn without_a_commit_lag_counts_from_where_the_group_begins() {
        let mut track = Track::default();
        let none = offsets(40, 100, None);
        assert_eq!(look(&mut track, 0, &none, 100).lag_records, Some(60));
        let latest = look_told(&mut track, 1, &none, &Told::default(), StartAt::Latest);
        assert_eq!((latest.lag_records, latest.lag_ms), (Some(0), Some(0)));
        let owned = Told { lag_records: Some(7), ..Told::default() };
        assert_eq!(look_told(&mut track, 2, &none, &owned, StartAt::Latest).lag_records, Some(7));
    }

    #[test]
    fn what_retention_deleted_is_not_lag() {
        let measure = look(&mut Track::default(), 0, &offsets(900, 1000, Some(100)), 1000);
        assert_eq!(measure.lag_records, Some(100));
        let emptied = look(&mut Track::default(), 0, &offsets(1000, 1000, Some(100)), 1000);
        assert_eq!((emptied.lag_records, emptied.lag_ms), (Some(0), Some(0)));
        let made_again = look(&mut Track::default(), 0, &offsets(0, 10, Some(100)), 10);
        assert_eq!(made_again.lag_records, Some(0));
    }

    #[test]
    fn an_open_transaction_is_said_and_is_no_lag() {
        let mut track = Track::default();
        let mut open = None;
        for second in (0..=40).step_by(5) {
            // The last stable offset stands at 500 from the tenth second on; the high watermark goes on.
            let end = if second < 10 { 400 + second * 10 } else { 500 };
            let measure = look(&mut track, second, &offsets(0, end, Some(end)), 400 + second * 10);
            assert_eq!((measure.lag_records, measure.lag_ms), (Some(0), Some(0)));
            open = measure.open_transaction_ms;
        }
        assert_eq!(open, Some(30_000));
        let done = look(&mut track, 45, &offsets(0, 850, Some(500)), 850);
        assert_eq!((done.open_transaction_ms, done.lag_records), (None, Some(350)));
    }

    #[test]
    fn an_old_backlog_is_as_old_as_it_took_to_produce() {
        let mut track = Track::default();
        look(&mut track, 0, &offsets(0, 100_000, Some(40_000)), 100_000);
        let measure = look(&mut track, 10, &offsets(0, 101_000, Some(41_000)), 101_000);
        assert_eq!((measure.lag_ms, measure.lag_at_least), (Some(600_000), true), "60,000 records at 100 a second");
    }

    #[test]
    fn markers_behind_the_last_record_are_no_lag() {
        let mut track = Track::default();
        let ended = offsets(0, 101, Some(100));
        assert_eq!(look(&mut track, 0, &ended, 101).lag_records, Some(1));
        assert_eq!(track.doubtful(1_000, &ended), None, "it may be on its way");
        look(&mut track, 5, &ended, 101);
        assert_eq!(track.doubtful(5_000, &ended), Some((100, 101)));
        assert_eq!(track.doubtful(6_000, &ended), None, "just asked");
        track.finished(100, 101);
        let measure = look(&mut track, 60, &ended, 101);
        assert_eq!((measure.lag_records, measure.lag_ms), (Some(0), Some(0)));
        assert_eq!(track.doubtful(60_000, &ended), None);
        // The next transaction, a minute later, is late since it began and not since the last one ended.
        let more = look(&mut track, 70, &offsets(0, 112, Some(100)), 112);
        assert!(more.lag_records == Some(11) && more.lag_ms.is_some_and(|ms| ms <= 10_000), "{more:?}");
        let read = look(&mut track, 75, &offsets(0, 112, Some(111)), 112);
        assert_eq!(read.lag_records, Some(1));
    }

    #[test]
    fn an_unanswered_partition_is_unknown() {
        let mut track = Track::default();
        look(&mut track, 0, &offsets(0, 100, Some(50)), 100);
        let silent = PartitionOffsets { partition: TopicPartition::new("t", 0), low: None, end: None, committed: Some(60) };
        let measure = look(&mut track, 5, &silent, 100);
        assert_eq!((measure.lag_records, measure.produced_records_per_s, measure.end_offset), (None, None, None));
    }
}
