//! `millrace dead-letters replay`: chosen letters through the connector's present rules, in this process; what was replayed is remembered.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use super::index::{self, Filter, choose};
use super::{TIMEOUT, Whose};
use crate::bigquery;
use crate::cli::connectors::{Failed, failed};
use crate::cli::offsets::find;
use crate::cli::stdout::say;
use crate::cli::{Exit, authorities};
use crate::config::{ConnectorConfig, Loaded};
use crate::fleet::{Replayed, StateTopic, letter_hash, replayed_key};
use crate::flow::Budget;
use crate::kafka::{ClusterSettings, GroupSettings, TopicScan};
use crate::pipeline::{ConnectorParts, ConnectorWorld, ReadLetter, Replay, WorkerShared};
use crate::record::OwnedRecord;
use crate::supervisor::SchemaSources;

/// Letters, and their bytes, that are replayed and then remembered at a time: what may be replayed again when the command is killed.
const CHUNK_LETTERS: usize = 1_000;
const CHUNK_BYTES: usize = 8 << 20;

/// What is replayed.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    filter: Filter,
    /// Also letters that were replayed before: their rows come again.
    #[arg(long)]
    again: bool,
    /// Say what would be replayed, and replay nothing.
    #[arg(long)]
    dry_run: bool,
    /// Give up when nothing became durable for so long: a table that holds, a dead-letter topic that is down.
    #[arg(long, default_value = "60s", value_parser = crate::cli::arguments::duration)]
    patience: Duration,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn replay(args: &ReplayArgs) -> Result<Exit, Failed> {
    let loaded = args.whose.config.load_usable().map_err(Failed::Said)?;
    let connector = find(&loaded, &args.whose.connector)?;
    // Before anything runs: it may begin the program anew.
    authorities::trust(&loaded.fleet).map_err(Failed::Broken)?;
    let state = StateTopic::open(&ClusterSettings::of_fleet(&loaded.fleet), &loaded.fleet.scaling).map_err(failed)?;
    let topic = connector.dead_letter_topic();
    let mut index = index::read(&loaded.fleet, connector, &args.filter, index::replayed_of(&state, &topic)?)?;
    let chosen = choose(&index.entries, args.again);
    index.entries = Vec::new();
    let mut told = json!({
        "dead_letter_topic": topic, "chosen": chosen.places.len(), "replayed_before": chosen.replayed_before,
        "of_the_same_records": chosen.of_same_record, "cannot_be_replayed": chosen.unfit, "remarks": index.remarks,
    });
    if !args.json {
        index.remarks.iter().for_each(|remark| say!("{remark}"));
        say!(
            "{topic}: {} letters to replay; left out: {} replayed before, {} more letters of the same records, {} without their record's value",
            chosen.places.len(),
            chosen.replayed_before,
            chosen.of_same_record,
            chosen.unfit
        );
    }
    let mut exit = Exit::Fine;
    if !args.dry_run && !chosen.places.is_empty() {
        let task = Task { args, loaded: &loaded, connector, state: &state, wanted: chosen.places.into_iter().collect() };
        let done = task.run(&mut index.replayed);
        told["rows"] = done.rows.into();
        told["dead_again"] = done.dead_again.into();
        if !args.json {
            say!("{} became rows, {} died again and are letters with one replay more", done.rows, done.dead_again);
        }
        if let Some(why) = done.failed {
            eprintln!("millrace: {why}; letters of the last {CHUNK_LETTERS} may have become rows and are replayed again next time");
            told["error"] = why.into();
            exit = Exit::Failed;
        }
    }
    if args.json {
        say!("{}", serde_json::to_string_pretty(&told).map_err(failed)?);
    }
    Ok(exit)
}

#[derive(Default)]
struct Done {
    rows: u64,
    dead_again: u64,
    failed: Option<String>,
}

/// What the replay of chosen letters needs.
struct Task<'a> {
    args: &'a ReplayArgs,
    loaded: &'a Loaded,
    connector: &'a ConnectorConfig,
    state: &'a StateTopic,
    /// Partition and offset of each letter in the dead-letter topic.
    wanted: HashSet<(i32, i64)>,
}

/// Letters that are replayed together, and remembered afterwards.
#[derive(Default)]
struct Chunk {
    letters: Vec<ReadLetter>,
    /// Partition, offset and hash of each.
    marks: Vec<(i32, i64, String)>,
    bytes: usize,
}

impl Chunk {
    fn add(&mut self, letter: OwnedRecord) -> Result<(), String> {
        self.bytes += letter.size_bytes();
        self.marks.push((letter.partition, letter.offset, letter_hash(&letter)));
        self.letters.push(ReadLetter::read(letter)?);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.letters.len() >= CHUNK_LETTERS || self.bytes >= CHUNK_BYTES
    }
}

impl Task<'_> {
    /// Replays the letters; what was remembered of earlier replays goes on in `replayed`.
    fn run(&self, replayed: &mut BTreeMap<i32, Replayed>) -> Done {
        let mut done = Done::default();
        done.failed = self.try_run(replayed, &mut done).err();
        done
    }

    fn try_run(&self, replayed: &mut BTreeMap<i32, Replayed>, done: &mut Done) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| words(&e))?;
        let _inside = runtime.enter();
        let parts = ConnectorParts { world: self.world(&runtime)?, prefetch_bytes: 0, paused: false };
        let mut replay = Replay::start(parts).map_err(|e| words(&e))?;
        let outcome = self.replay_all(&mut replay, &runtime, replayed, done);
        replay.stop();
        runtime.shutdown_background();
        outcome
    }

    fn world(&self, runtime: &Runtime) -> Result<ConnectorWorld, String> {
        let fleet = Arc::new(self.loaded.fleet.clone());
        let client = runtime.block_on(bigquery::connect(&fleet.bigquery, fleet.worker.ca_file.as_deref())).map_err(|e| words(&e))?;
        let sources = SchemaSources::new(&fleet).map_err(|e| words(&e))?;
        let budget = Budget::new(fleet.worker.memory.bytes());
        Ok(ConnectorWorld {
            schemas: sources.of(self.connector),
            config: Arc::new(self.connector.clone()),
            tables: client.tables(),
            appender: client.appender(),
            streams: client.streams(),
            worker: Arc::new(WorkerShared::new(budget, runtime.handle().clone(), fleet.bigquery.text_literals)),
            fleet,
        })
    }

    fn replay_all(
        &self,
        replay: &mut Replay,
        runtime: &Runtime,
        replayed: &mut BTreeMap<i32, Replayed>,
        done: &mut Done,
    ) -> Result<(), String> {
        let settings = GroupSettings::of(&self.loaded.fleet, self.connector, 0);
        let mut scan = TopicScan::open(&settings, &self.connector.dead_letter_topic(), TIMEOUT).map_err(|e| words(&e))?;
        loop {
            let mut chunk = Chunk::default();
            while !chunk.is_full() {
                let Some(record) = scan.next_record().map_err(|e| words(&e))? else { break };
                if self.wanted.contains(&(record.partition, record.offset)) {
                    chunk.add(record)?;
                }
            }
            if chunk.letters.is_empty() {
                return Ok(()); // the topic is read to its end
            }
            let outcome = replay.run(&chunk.letters, self.args.patience, &mut |why| eprintln!("millrace: {why}"))?;
            done.rows += outcome.rows;
            done.dead_again += outcome.dead_again;
            self.remember(&chunk, runtime, replayed)?;
        }
    }

    /// Writes to the state topic which letters were replayed.
    fn remember(&self, chunk: &Chunk, runtime: &Runtime, replayed: &mut BTreeMap<i32, Replayed>) -> Result<(), String> {
        let topic = self.connector.dead_letter_topic();
        for (partition, offset, hash) in &chunk.marks {
            replayed.entry(*partition).or_default().add(*offset, hash)?;
        }
        for partition in chunk.marks.iter().map(|(partition, ..)| *partition).collect::<BTreeSet<_>>() {
            let Some(note) = replayed.get(&partition) else { continue };
            let note = serde_json::to_vec(note).map_err(|e| words(&e))?;
            let written = runtime.block_on(self.state.write(&replayed_key(&topic, partition), Some(&note)));
            written.map_err(|error| format!("what was replayed could not be remembered: {error}"))?;
        }
        Ok(())
    }
}

fn words(error: &dyn std::fmt::Display) -> String {
    error.to_string()
}
