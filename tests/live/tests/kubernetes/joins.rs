//! Pods that were asked for together join their group together, where each of them alone would stop all the others; and they join although
//! the leader dies meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use millrace::fleet::JOIN_WAIT_MAX;
use serde_json::{Value, json};

use crate::harness::avro::{Stock, framed, stock_schema};
use crate::harness::cluster::Cluster;
use crate::harness::installation::{avro_connector, patient};
use crate::harness::journal::{Producer, Stream, reconcile};
use crate::harness::process::wait_for;
use crate::harness::release::Release;
use crate::harness::servers::Servers;

const NAME: &str = "joins";
const GROUP: &str = "connect-joins";
const TEST: &str = "kubernetes::pods_that_were_asked_for_together_join_together";
const PARTITIONS: usize = 12;
/// What one worker can do here, records a second.
const CAPACITY: u32 = 60;
const LITTLE: u32 = 10;
/// Several workers are needed for it.
const MUCH: u32 = 200;
/// So many, or more.
const SEVERAL: usize = 3;
/// As many as there may be.
const PODS: usize = 4;
/// To so many a person shrinks the fleet, and back to all.
const FEW: usize = 2;
/// How long something takes on a busy machine that takes seconds, a process's start included.
const SOON: Duration = Duration::from_secs(90);
/// How long the leader may take to see a need, and to say so to Kubernetes.
const SEEN_WITHIN: Duration = Duration::from_secs(150);
/// Between pods: longer than a rebalance of a group whose members have a heartbeat every 3 s, so that without waiting each pod would be one.
const APART: Duration = Duration::from_secs(4);
/// What a worker may have written and not committed when it is killed: brokers that did not answer a session long would have ended its own.
const AT_A_KILL: f64 = CAPACITY as f64 * 10.0;
const JOINS: &str = "joins its group: waited for others long enough";

/// The fleet, and what is seen of it.
struct Life<'a> {
    kafka: &'a Cluster,
    release: Release<'a>,
    logs: PathBuf,
    started: Instant,
}

/// What the living workers say of themselves.
#[derive(Debug, Default)]
struct Seen {
    waiting: Vec<String>,
    /// Partitions, by worker.
    owned: BTreeMap<String, usize>,
}

/// Load rises, pods come one after another, wait, and join in fewer rebalances than they are; then others, and the leader is killed while
/// they wait.
///
/// The load is short, and nothing becomes late for want of those who wait: what the policy does then is the fewest stops, not to be weighed
/// against lag, which on a busy machine is anything.
pub fn pods_that_were_asked_for_together_join_together(servers: &Servers) -> anyhow::Result<()> {
    let (kafka, reader, plane) = (servers.kafka()?, servers.emulator()?.reader(), servers.plane()?);
    kafka.create_topic(NAME, i32::try_from(PARTITIONS)?, &[])?;
    kafka.create_topic("joins.dead", 1, &[])?;
    reader.create_dataset("joins")?;
    let id = servers.registry()?.register("joins-value", &stock_schema()?, &[])?;
    let stock = Stock::new()?;
    let value = move |n| (Stock::reference(n), framed(id, &stock.encode(n).expect("a stock update encodes")));
    let stream = Stream::start(Producer::new(kafka.client(), NAME)?, i32::try_from(PARTITIONS)?, LITTLE, value);
    let scaling = json!({
        "min": 1, "max": PODS, "freshness_target": "150s", "scale_down_window": "600s", "report_interval": "1s", "decide_interval": "1s",
        "report_topic": "joins.reports", "state_topic": "joins.state",
    });
    let range = "\n[kafka]\n\"partition.assignment.strategy\" = \"range\"\n";
    let connector = patient(&avro_connector(NAME, "joins.rows", "joins.dead")) + range;
    let worker = json!({"max_records_per_s": CAPACITY});
    let release = Release::install(servers, plane, &plane.url(), (TEST, NAME), worker, scaling, &connector)?;
    let life = Life { kafka, release, logs: servers.folder(TEST)?, started: Instant::now() };

    life.wait_until_shared_by(1)?;
    life.grows(&stream).and_then(|asked| life.pods_join_together(asked)).with_context(|| life.decided())?;
    let again = life.shrinks_and_grows_by_hand();
    again.and_then(|()| life.pods_join_although_the_leader_is_killed()).with_context(|| life.decided())?;

    let journal = stream.stop()?;
    let counted = life.release.kubelet.sum_of("millrace_possible_duplicate_rows_total") + AT_A_KILL;
    let duplicates = reconcile(reader, "joins.rows", "reference", &journal, Duration::from_secs(300))?;
    life.say(&format!("{} records, none missing, {duplicates} duplicates after a kill, at most {counted}", journal.len()));
    ensure!(duplicates as f64 <= counted, "{duplicates} duplicates, at most {counted} by what was counted and what a kill may double");
    life.release.uninstall()
}

impl Life<'_> {
    /// Load rises until the leader asks for several workers, of whom none can start until the one that is there has read what the load left.
    /// Returns how many are asked for.
    fn grows(&self, stream: &Stream) -> anyhow::Result<usize> {
        self.release.kubelet.hold_from(Some(1))?;
        stream.set_rate(MUCH);
        self.release.wait_for_replicas("several workers", SEEN_WITHIN, |n| n >= SEVERAL as u64)?;
        stream.set_rate(LITTLE);
        self.wait_until_nothing_waits()?; // it takes as long as a new node and an image do
        self.wait_until_joins_are_held()?;
        let asked = usize::try_from(self.release.replicas()?)?;
        self.say(&format!("load rose, and the leader asked for {asked} workers"));
        Ok(asked)
    }

    /// A person ends all but a few pods, and some seconds later wants as many as there may be.
    fn shrinks_and_grows_by_hand(&self) -> anyhow::Result<()> {
        self.wait_until_nothing_waits()?;
        self.release.kubelet.hold_from(Some(u32::try_from(FEW)?))?;
        self.release.scale_by_hand(FEW as u64)?;
        self.wait_until_shared_by(FEW)?;
        self.release.scale_by_hand(PODS as u64)?;
        self.say(&format!("a person left {FEW} workers, and asked for {PODS} again"));
        self.wait_until_joins_are_held()
    }

    /// All but the first of these pods come, at different times.
    fn pods_join_together(&self, asked: usize) -> anyhow::Result<()> {
        let (before, came) = (self.kafka.generations(GROUP)?, asked - 1);
        for pod in 1..asked {
            self.release.kubelet.hold_from(Some(u32::try_from(pod)? + 1))?;
            let seen = self.wait_until_waiting_or_member(pod)?;
            if pod == 1 {
                ensure!(seen.waiting == [name(1)], "the first that came was not held back: {seen:?}");
                let shown = || Ok((self.release.kubelet.sum_of("millrace_workers_waiting") == 1.0).then_some(()));
                wait_for("the leader's gauge", SOON, shown)?;
                let after = self.kafka.generations(GROUP)?;
                ensure!(arrivals(&before, &after).is_empty(), "nobody joined, and the group went from {before:?} to {after:?}");
            }
            std::thread::sleep(APART);
        }
        self.wait_until_shared_by(asked)?;
        let after = self.kafka.generations(GROUP)?;
        let steps = arrivals(&before, &after);
        let why: Vec<String> = (1..asked).map(|pod| self.why_it_joined(pod)).collect::<anyhow::Result<_>>()?;
        self.say(&format!("{came} pods joined: the group rose to {steps:?} members, of the generations {after:?}; {why:?}"));
        ensure!(steps.last() == Some(&u32::try_from(asked)?), "{asked} members are in no generation of {after:?}");
        ensure!(steps.len() < came, "{came} pods came and cost {} rebalances, of the generations {after:?}", steps.len());
        ensure!(why.iter().any(|why| why.contains("the leader says that all join now")), "no pod was released by the leader: {why:?}");
        Ok(())
    }

    /// Of two pods one waits for the other when the leader is killed.
    fn pods_join_although_the_leader_is_killed(&self) -> anyhow::Result<()> {
        let [waits, comes_later] = [FEW, FEW + 1];
        self.release.kubelet.hold_from(Some(u32::try_from(comes_later)?))?;
        let seen = self.wait_until_waiting_or_member(waits)?;
        ensure!(seen.waiting == [name(waits)], "the first that came was not held back: {seen:?}");

        let leader = self.release.leader()?.context("somebody leads")?;
        let killed = Instant::now();
        self.release.kubelet.signal(leader.pod(), "KILL")?;
        self.release.kubelet.hold_from(None)?;
        self.say(&format!("{} waits, and the leader {} is killed", name(waits), leader.pod()));
        self.wait_until_shared_by_within(PODS, JOIN_WAIT_MAX + SOON)?;
        let joined = killed.elapsed();
        let next = self.release.wait_for_another_leader(&leader, SOON)?;
        let why: Vec<String> = [waits, comes_later].iter().map(|pod| self.why_it_joined(*pod)).collect::<anyhow::Result<_>>()?;
        self.say(&format!("all had joined {joined:.1?} after the kill, {} leads; {why:?}", next.pod()));
        Ok(())
    }

    fn say(&self, what: &str) {
        eprintln!("      {:5.0} s: {what}", self.started.elapsed().as_secs_f64());
    }

    fn decided(&self) -> String {
        format!("{:?} after the beginning; the last decision: {}", self.started.elapsed(), self.release.decision())
    }

    fn seen(&self) -> anyhow::Result<Seen> {
        let fleet = self.release.fleet()?;
        let mut seen = Seen::default();
        for worker in fleet["workers"].as_array().context("no workers")?.iter().filter(|worker| worker["presence"] == "live") {
            let name = worker["report"]["worker"].as_str().context("no name")?.to_owned();
            let Some(connector) = worker["report"]["connectors"].as_array().and_then(|all| all.first()) else { continue };
            if connector["state"] == "waiting" {
                seen.waiting.push(name.clone());
            }
            seen.owned.insert(name, connector["partitions"].as_array().map_or(0, Vec::len));
        }
        Ok(seen)
    }

    /// Waits for the leader's word that who comes waits.
    fn wait_until_joins_are_held(&self) -> anyhow::Result<()> {
        let held = || Ok(self.release.fleet().ok().filter(|fleet| !fleet["joins_held_until_ms"].is_null()).map(drop));
        wait_for("the leader's word that who comes waits", SOON, held)
    }

    /// Waits until the backlog is gone.
    fn wait_until_nothing_waits(&self) -> anyhow::Result<()> {
        let lag = |fleet: &Value| fleet["decided"]["decision"]["connectors"][0]["lag_records"].as_f64();
        let gone = || Ok(self.release.fleet().ok().and_then(|fleet| lag(&fleet)).filter(|lag| *lag < f64::from(CAPACITY)).map(drop));
        wait_for("the end of the backlog", SEEN_WITHIN, gone)
    }

    /// Waits until a pod waits, or has partitions.
    fn wait_until_waiting_or_member(&self, pod: usize) -> anyhow::Result<Seen> {
        wait_for(&format!("{} to wait, or to join", name(pod)), SOON, || {
            let Ok(seen) = self.seen() else { return Ok(None) };
            let there = seen.waiting.contains(&name(pod)) || seen.owned.get(&name(pod)).is_some_and(|owned| *owned > 0);
            Ok(there.then_some(seen))
        })
    }

    /// Waits until the first pods share all partitions evenly, and nobody else has any.
    fn wait_until_shared_by(&self, pods: usize) -> anyhow::Result<()> {
        self.wait_until_shared_by_within(pods, SEEN_WITHIN)
    }

    fn wait_until_shared_by_within(&self, pods: usize, within: Duration) -> anyhow::Result<()> {
        let mut last = Seen::default();
        let shared = wait_for(&format!("the partitions of {pods} workers"), within, || {
            let Ok(seen) = self.seen() else { return Ok(None) };
            let even = (0..pods).all(|pod| seen.owned.get(&name(pod)) == Some(&(PARTITIONS / pods)));
            last = seen;
            Ok(even.then_some(()))
        });
        shared.with_context(|| format!("seen last: {last:?}"))
    }

    /// What a pod said when it joined, the last time that it had waited; that it never did, otherwise.
    fn why_it_joined(&self, pod: usize) -> anyhow::Result<String> {
        let file = self.logs.join(format!("{}.log", name(pod)));
        let log = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let why = log.lines().rev().filter(|line| line.contains(JOINS)).find_map(|line| line.split_once("why=")).map(|(_, why)| why);
        Ok(format!("{}: {}", name(pod), why.unwrap_or("at once")))
    }
}

/// The numbers of members to which the group rose, one for each rebalance that brought new ones: those of the generations that have more
/// than any before them. A member that a busy machine kept from its heartbeat goes and comes back without counting.
fn arrivals(before: &BTreeMap<u32, u32>, after: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut most = before.values().next_back().copied().unwrap_or(0);
    let mut steps = Vec::new();
    for (_, members) in after.iter().filter(|(number, _)| !before.contains_key(number)) {
        if *members > most {
            most = *members;
            steps.push(most);
        }
    }
    steps
}

fn name(pod: usize) -> String {
    format!("{NAME}-{pod}")
}
