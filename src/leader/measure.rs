//! One look at the brokers: where every partition of every connector ends, and what its group has committed. Blocks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tracks::{Seen, Track, told};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::fleet::{ConnectorMeasure, LiveWorker, PartitionMeasure};
use crate::flow::Clock;
use crate::kafka::{GroupSettings, HighWatermarks, KafkaError, LagClient, PartitionOffsets, Sampler};
use crate::record::TopicPartition;
use crate::watchdog::{self, Beat};

/// How often the topics are asked for their partitions.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);
/// One question to the brokers.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the size of a partition's records is looked at again, when it has new ones.
const SAMPLE_EVERY_MS: i64 = 60_000;
/// Partitions that are sampled in one look: a connector of 1,000 is through after 8 looks.
const SAMPLES_PER_LOOK: usize = 128;

/// The clients that connectors share when they reach the cluster alike: a client costs threads for every broker.
#[derive(Default)]
struct Shared {
    high: Option<HighWatermarks>,
    sampler: Option<Sampler>,
}

/// What one look at a connector needs beside the brokers.
struct Look<'a> {
    live: &'a [LiveWorker],
    clock: &'a dyn Clock,
    window_ms: i64,
    sample_timeout: Duration,
}

/// A connector as the leader looks at it.
struct Watched {
    config: Arc<ConnectorConfig>,
    settings: GroupSettings,
    client: Option<LagClient>,
    partitions: Vec<TopicPartition>,
    asked_at: Option<Instant>,
    tracks: HashMap<TopicPartition, Track>,
}

/// Asks the brokers, and remembers what it needs for rates. Lives as long as a leader's term.
pub(super) struct Measurer {
    fleet: Arc<FleetConfig>,
    clock: Arc<dyn Clock>,
    window_ms: i64,
    sample_timeout: Duration,
    watched: BTreeMap<String, Watched>,
    shared: HashMap<BTreeMap<String, String>, Shared>,
    beat: Beat,
}

impl Measurer {
    pub fn new(fleet: Arc<FleetConfig>, clock: Arc<dyn Clock>) -> Self {
        let window_ms = i64::try_from(fleet.scaling.rate_window().as_millis()).unwrap_or(i64::MAX);
        // A look must not take the next one's time.
        let sample_timeout = (fleet.scaling.decide_interval.get() / 2).min(Duration::from_secs(1));
        let beat = watchdog::watch("the leader's measuring of the fleet");
        beat.idle();
        Self { beat, fleet, clock, window_ms, sample_timeout, watched: BTreeMap::new(), shared: HashMap::new() }
    }

    /// Looks at these connectors, with what live workers say of their partitions. A connector that cannot be looked at says why; the others
    /// go on.
    pub fn look(&mut self, connectors: &[Arc<ConnectorConfig>], live: &[LiveWorker]) -> Vec<ConnectorMeasure> {
        self.watched.retain(|name, watched| connectors.iter().any(|config| config.name == *name && same_topics(config, &watched.config)));
        let ways: Vec<BTreeMap<String, String>> = connectors.iter().map(|config| overrides(config)).collect();
        self.shared.retain(|way, _| ways.contains(way));
        let look = Look { live, clock: &*self.clock, window_ms: self.window_ms, sample_timeout: self.sample_timeout };
        let mut measures = Vec::with_capacity(connectors.len());
        for (config, way) in connectors.iter().zip(ways) {
            let _step = self.beat.long_step("asking the brokers for a connector's offsets");
            let watched = self.watched.entry(config.name.clone()).or_insert_with(|| Watched {
                config: config.clone(),
                settings: GroupSettings::of(&self.fleet, config, 0),
                client: None,
                partitions: Vec::new(),
                asked_at: None,
                tracks: HashMap::new(),
            });
            let shared = self.shared.entry(way).or_default();
            let (partitions, trouble) = match watched.look(&look, shared) {
                Ok(partitions) => (partitions, None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            let (connector, group) = (config.name.clone(), config.group_id());
            measures.push(ConnectorMeasure { connector, group, partitions, trouble });
        }
        measures
    }
}

/// How a connector reaches the cluster otherwise than the fleet does.
fn overrides(config: &ConnectorConfig) -> BTreeMap<String, String> {
    config.kafka.iter().map(|(name, value)| (name.clone(), value.to_property())).collect()
}

fn same_topics(a: &ConnectorConfig, b: &ConnectorConfig) -> bool {
    a.topics == b.topics && a.topics_regex == b.topics_regex && a.group_id() == b.group_id() && a.kafka == b.kafka
}

impl Watched {
    fn look(&mut self, look: &Look<'_>, shared: &mut Shared) -> Result<Vec<PartitionMeasure>, KafkaError> {
        let client = match self.client.take() {
            Some(client) => self.client.insert(client),
            None => self.client.insert(LagClient::new(&self.settings)?),
        };
        if self.partitions.is_empty() || self.asked_at.is_none_or(|at| at.elapsed() > PARTITIONS_EVERY) {
            self.partitions = client.partitions(ASK_TIMEOUT)?;
            self.asked_at = Some(Instant::now());
            let partitions: HashSet<&TopicPartition> = self.partitions.iter().collect();
            self.tracks.retain(|partition, _| partitions.contains(partition));
        }
        let offsets = client.query(&self.partitions, ASK_TIMEOUT)?;
        let (now_ms, sample_timeout) = (millis(look.clock), look.sample_timeout);
        // Not worth failing for: without it an open transaction is not noticed.
        let highs = high_watermarks(shared, &self.settings, &self.partitions).unwrap_or_else(|error| {
            tracing::debug!(connector = self.config.name, %error, "high watermarks are not known this time");
            HashMap::new()
        });
        let ends: Vec<(TopicPartition, i64, i64)> =
            offsets.iter().filter_map(|o| Some((o.partition.clone(), o.low?, o.end?))).filter(|(_, low, end)| end > low).collect();
        self.sample(shared, &ends, now_ms, sample_timeout);
        let told = told(look.live, &self.config.name);
        let nothing = Default::default();
        let measures = offsets
            .iter()
            .map(|offsets| {
                let track = self.tracks.entry(offsets.partition.clone()).or_default();
                let told = told.get(&offsets.partition).unwrap_or(&nothing);
                let high = highs.get(&offsets.partition).copied();
                track.measure(&Seen { now_ms, window_ms: look.window_ms, offsets, high, told, start: self.config.start })
            })
            .collect();
        // For the next look: what stands still behind its commit may be nothing that anyone will read.
        self.settle_doubts(shared, &offsets, now_ms, sample_timeout);
        Ok(measures)
    }

    /// Asks whether there is anything to read where lag stands still.
    fn settle_doubts(&mut self, shared: &mut Shared, offsets: &[PartitionOffsets], now_ms: i64, timeout: Duration) {
        let mut topic: Option<Arc<str>> = None;
        let mut ranges = Vec::new();
        for known in offsets {
            let of_one_topic = topic.as_ref().is_none_or(|topic| *topic == known.partition.topic);
            let Some(track) = self.tracks.get_mut(&known.partition).filter(|_| of_one_topic && ranges.len() < SAMPLES_PER_LOOK) else {
                continue;
            };
            if let Some((from, end)) = track.doubtful(now_ms, known) {
                topic = Some(known.partition.topic.clone());
                ranges.push((known.partition.partition, from, end));
            }
        }
        let Some(topic) = topic else { return };
        match sampler(shared, &self.settings).and_then(|sampler| sampler.readable(&topic, &ranges, timeout)) {
            Ok(readable) => {
                for known in offsets.iter().filter(|known| known.partition.topic == topic) {
                    let range = ranges.iter().find(|(partition, _, _)| *partition == known.partition.partition);
                    if let (Some((partition, _, end)), Some(committed)) = (range, known.committed)
                        && readable.get(partition) == Some(&false)
                        && let Some(track) = self.tracks.get_mut(&known.partition)
                    {
                        track.finished(committed, *end);
                    }
                }
            }
            Err(error) => {
                tracing::debug!(connector = self.config.name, %error, "whether anything is left to read is not known this time");
                shared.sampler = None;
            }
        }
    }

    /// Looks at the last records of some partitions: those first that were never looked at, then those with new records whose look is old.
    fn sample(&mut self, shared: &mut Shared, ends: &[(TopicPartition, i64, i64)], now_ms: i64, timeout: Duration) {
        let due = |partition: &TopicPartition, end: i64| match self.tracks.get(partition).and_then(|track| track.sampled_at) {
            None => true,
            Some((at_ms, end_then)) => now_ms - at_ms >= SAMPLE_EVERY_MS && end != end_then,
        };
        let mut wanted: Vec<&(TopicPartition, i64, i64)> = ends.iter().filter(|(partition, _, end)| due(partition, *end)).collect();
        wanted.sort_by_key(|(partition, _, _)| self.tracks.get(partition).and_then(|track| track.sampled_at));
        let Some((first, _, _)) = wanted.first() else { return };
        // One topic a look: the others have their turn in the next ones.
        let topic = first.topic.clone();
        let of_topic: Vec<(i32, i64, i64)> = wanted
            .iter()
            .filter(|(p, _, _)| p.topic == topic)
            .take(SAMPLES_PER_LOOK)
            .map(|(p, low, end)| (p.partition, *low, *end))
            .collect();
        let means = match sampler(shared, &self.settings).and_then(|sampler| sampler.mean_bytes(&topic, &of_topic, timeout)) {
            Ok(means) => means,
            Err(error) => {
                tracing::debug!(connector = self.config.name, %error, "sizes of records are not known this time");
                // What it was assigned is not known any more.
                shared.sampler = None;
                HashMap::new()
            }
        };
        for (partition, _, end) in of_topic {
            let track = self.tracks.entry(TopicPartition::new(topic.clone(), partition)).or_default();
            track.sampled(now_ms, end, means.get(&partition).copied());
        }
    }
}

fn high_watermarks(
    shared: &mut Shared,
    settings: &GroupSettings,
    partitions: &[TopicPartition],
) -> Result<HashMap<TopicPartition, i64>, KafkaError> {
    let asker = match shared.high.take() {
        Some(asker) => shared.high.insert(asker),
        None => shared.high.insert(HighWatermarks::new(settings)?),
    };
    asker.query(partitions, ASK_TIMEOUT)
}

fn sampler<'a>(shared: &'a mut Shared, settings: &GroupSettings) -> Result<&'a Sampler, KafkaError> {
    Ok(match shared.sampler.take() {
        Some(sampler) => shared.sampler.insert(sampler),
        None => shared.sampler.insert(Sampler::new(settings)?),
    })
}

fn millis(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.now_monotonic().as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::flow::SystemClock;

    #[test]
    fn clients_of_connectors_that_are_gone_are_let_go_of() {
        let fleet = "[kafka]\n\"bootstrap.servers\" = \"127.0.0.1:1\"\n[bigquery]\nproject = \"p\"\n";
        let mut measurer = Measurer::new(Arc::new(toml::from_str(fleet).unwrap()), Arc::new(SystemClock::new()));
        let connector = |text: &str| {
            overrides(&toml::from_str(&format!("topics = [\"t\"]\n{text}\n[value]\nformat = \"json\"\n[table]\nname = \"d.t\"\n")).unwrap())
        };
        for way in [connector(""), connector("[kafka]\n\"client.id\" = \"old\"")] {
            measurer.shared.insert(way, Shared::default());
        }
        measurer.look(&[], &[]);
        assert!(measurer.shared.is_empty() && measurer.watched.is_empty());
    }
}
