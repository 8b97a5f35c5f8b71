//! `millrace dead-letters replay`: chosen letters through the connector's present rules, in this process; what was replayed is remembered.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::index::{self, Filter, Index, choose};
use super::{TIMEOUT, Whose};
use crate::bigquery;
use crate::cli::connectors::{Failed, failed};
use crate::cli::offsets::find;
use crate::cli::{Exit, authorities};
use crate::config::{ConnectorConfig, Loaded};
use crate::fleet::{Replayed, StateTopic, letter_hash, replayed_key};
use crate::flow::Budget;
use crate::kafka::{ClusterSettings, GroupSettings, TopicScan};
use crate::pipeline::{ConnectorParts, ConnectorWorld, ReadLetter, Replay, WorkerShared};
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
        index.remarks.iter().for_each(|remark| println!("{remark}"));
        println!(
            "{topic}: {} letters to replay; left out: {} replayed before, {} more letters of the same records, {} without their record's value",
            chosen.places.len(),
            chosen.replayed_before,
            chosen.of_same_record,
            chosen.unfit
        );
    }
    let mut exit = Exit::Fine;
    if !args.dry_run && !chosen.places.is_empty() {
        let done = run(args, &loaded, connector, &state, &mut index, &chosen.places.into_iter().collect());
        told["rows"] = done.rows.into();
        told["dead_again"] = done.dead_again.into();
        if !args.json {
            println!("{} became rows, {} died again and are letters with one replay more", done.rows, done.dead_again);
        }
        if let Some(why) = done.failed {
            eprintln!("millrace: {why}; letters of the last {CHUNK_LETTERS} may have become rows and are replayed again next time");
            told["error"] = why.into();
            exit = Exit::Failed;
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&told).map_err(failed)?);
    }
    Ok(exit)
}

#[derive(Default)]
struct Done {
    rows: u64,
    dead_again: u64,
    failed: Option<String>,
}

fn run(
    args: &ReplayArgs,
    loaded: &Loaded,
    connector: &ConnectorConfig,
    state: &StateTopic,
    index: &mut Index,
    wanted: &HashSet<(i32, i64)>,
) -> Done {
    let mut done = Done::default();
    done.failed = try_run(args, loaded, connector, state, &mut index.replayed, wanted, &mut done).err();
    done
}

fn try_run(
    args: &ReplayArgs,
    loaded: &Loaded,
    connector: &ConnectorConfig,
    state: &StateTopic,
    replayed: &mut BTreeMap<i32, Replayed>,
    wanted: &HashSet<(i32, i64)>,
    done: &mut Done,
) -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(|e| words(&e))?;
    let _inside = runtime.enter();
    let (fleet, topic) = (Arc::new(loaded.fleet.clone()), connector.dead_letter_topic());
    let client = runtime.block_on(bigquery::connect(&fleet.bigquery, fleet.worker.ca_file.as_deref())).map_err(|e| words(&e))?;
    let sources = SchemaSources::new(&fleet).map_err(|e| words(&e))?;
    let budget = Budget::new(fleet.worker.memory.bytes());
    let world = ConnectorWorld {
        schemas: sources.of(connector),
        config: Arc::new(connector.clone()),
        tables: client.tables(),
        appender: client.appender(),
        streams: client.streams(),
        worker: Arc::new(WorkerShared::new(budget, runtime.handle().clone(), fleet.bigquery.text_literals)),
        fleet: fleet.clone(),
    };
    let mut replay = Replay::start(ConnectorParts { world, prefetch_bytes: 0, paused: false }).map_err(|e| words(&e))?;
    let outcome = (|| {
        let mut scan = TopicScan::open(&GroupSettings::of(&fleet, connector, 0), &topic, TIMEOUT).map_err(|e| words(&e))?;
        let (mut letters, mut marks, mut bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            let record = scan.next_record().map_err(|e| words(&e))?;
            let ended = record.is_none();
            if let Some(record) = record.filter(|record| wanted.contains(&(record.partition, record.offset))) {
                bytes += record.size_bytes();
                marks.push((record.partition, record.offset, letter_hash(&record)));
                letters.push(ReadLetter::read(record)?);
            }
            if letters.is_empty() || !(ended || letters.len() >= CHUNK_LETTERS || bytes >= CHUNK_BYTES) {
                if ended {
                    return Ok(());
                }
                continue;
            }
            let outcome = replay.run(&letters, args.patience, &mut |why| eprintln!("millrace: {why}"))?;
            done.rows += outcome.rows;
            done.dead_again += outcome.dead_again;
            let mut touched = HashSet::new();
            for (partition, offset, hash) in marks.drain(..) {
                replayed.entry(partition).or_default().add(offset, &hash)?;
                touched.insert(partition);
            }
            for partition in touched {
                let Some(note) = replayed.get(&partition) else { continue };
                let note = serde_json::to_vec(note).map_err(|e| words(&e))?;
                let written = runtime.block_on(state.write(&replayed_key(&topic, partition), Some(&note)));
                written.map_err(|error| format!("what was replayed could not be remembered: {error}"))?;
            }
            (letters, bytes) = (Vec::new(), 0);
            if ended {
                return Ok(());
            }
        }
    })();
    replay.stop();
    runtime.shutdown_background();
    outcome
}
