//! `millrace connectors`: what connectors do over the whole fleet, and what they are told to do.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

use super::Exit;
use super::run::ConfigArgs;
use super::stdout::say;
use crate::config::{Loaded, ScalingMode};
use crate::fleet::{DesiredConnector, Order, StateTopic, Verb, WorkerReport};
use crate::flow::{Clock, SystemClock};
use crate::kafka::ClusterSettings;

/// What is done with connectors.
#[derive(Debug, Subcommand)]
pub enum ConnectorsCommand {
    /// Show every connector: what it is told to do, and what it does on each worker.
    List(ListArgs),
    /// Have connectors take nothing more: they stay members of their groups and keep their partitions.
    Pause(TellArgs),
    /// Have connectors run: after a pause where they stood, after a stop by joining their groups again.
    Resume(TellArgs),
    /// Have connectors drain and start anew, once on every worker: also those that failed.
    Restart(TellArgs),
    /// Have connectors drain and leave their groups on every worker: then `millrace offsets set` may change their offsets.
    Stop(TellArgs),
}

/// How the list is shown.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which connectors are told.
#[derive(Debug, Args)]
pub struct TellArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The connectors: their files' names without `.toml`.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All connectors of the folder.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A connector in the list.
#[derive(Debug, Serialize)]
struct Listed {
    connector: String,
    /// `running` unless somebody said otherwise.
    desired: String,
    /// When that was said, milliseconds since the epoch.
    since_ms: Option<i64>,
    /// By worker.
    workers: BTreeMap<String, ListedWorker>,
}

#[derive(Debug, Serialize)]
struct ListedWorker {
    state: String,
    message: Option<String>,
    partitions: usize,
    /// When it said so, by its clock, milliseconds since the epoch.
    at_ms: i64,
}

/// Runs the command.
pub fn connectors(command: &ConnectorsCommand) -> Exit {
    let done = match command {
        ConnectorsCommand::List(args) => list(args),
        ConnectorsCommand::Pause(args) => tell(args, Verb::Pause),
        ConnectorsCommand::Resume(args) => tell(args, Verb::Resume),
        ConnectorsCommand::Restart(args) => tell(args, Verb::Restart),
        ConnectorsCommand::Stop(args) => tell(args, Verb::Stop),
    };
    done.unwrap_or_else(|failed| failed.say())
}

/// Why a command did not do what was asked.
pub(super) enum Failed {
    /// It was said already.
    Said(Exit),
    /// Wrong arguments or configuration.
    Usage(String),
    /// It did not work.
    Broken(String),
}

impl Failed {
    pub(super) fn say(self) -> Exit {
        match self {
            Self::Said(exit) => exit,
            Self::Usage(why) => {
                eprintln!("millrace: {why}");
                Exit::Usage
            }
            Self::Broken(why) => {
                eprintln!("millrace: {why}");
                Exit::Failed
            }
        }
    }
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failed {
    Failed::Broken(error.to_string())
}

pub(super) fn now_ms() -> i64 {
    SystemClock::new().now_wall_us() / 1000
}

fn open(config: &ConfigArgs) -> Result<(Loaded, StateTopic), Failed> {
    let loaded = config.load_usable().map_err(Failed::Said)?;
    if loaded.fleet.scaling.mode == ScalingMode::Off {
        let file = loaded.config_file.display();
        return Err(Failed::Usage(format!(
            "{file}: [scaling] mode = \"off\": workers do not read the fleet's state topic and would not follow; \"observe\" resizes nothing and does"
        )));
    }
    let topic = StateTopic::open(&ClusterSettings::of_fleet(&loaded.fleet), &loaded.fleet.scaling).map_err(failed)?;
    Ok((loaded, topic))
}

/// The connectors of the folder, those included whose files have mistakes.
fn in_folder(loaded: &Loaded) -> BTreeSet<String> {
    loaded.connectors.iter().map(|connector| connector.name.clone()).chain(loaded.refused.keys().cloned()).collect()
}

fn tell(args: &TellArgs, verb: Verb) -> Result<Exit, Failed> {
    let (loaded, topic) = open(&args.config)?;
    let known = in_folder(&loaded);
    let names: Vec<String> = if args.all { known.iter().cloned().collect() } else { args.names.clone() };
    let wishes = topic.wishes().map_err(failed)?;
    if let Some(unknown) = names.iter().find(|name| !known.contains(*name) && !wishes.contains_key(*name)) {
        let folder = loaded.connectors_folder.display();
        let there = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Failed::Usage(format!("no connector `{unknown}` in {folder}: there are {there}")));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let given: Vec<(String, Result<Order, String>)> = names
        .into_iter()
        .map(|name| {
            let order = Order::new(&name, verb, wishes.get(&name), now_ms(), rand::random())
                .and_then(|order| runtime.block_on(topic.order(&order)).map(|()| order).map_err(|error| error.to_string()));
            (name, order)
        })
        .collect();
    // Somebody else may have given orders meanwhile.
    let now = topic.wishes().map_err(|error| Failed::Broken(format!("written, and whether it holds is not known: {error}")))?;
    let (mut told, mut wrong) = (Vec::new(), 0);
    for (name, order) in given {
        let answer = order.and_then(|order| order.held(now.get(&name).cloned()).map_err(|overtaken| overtaken.to_string()));
        match &answer {
            Ok(wish) if !args.json => say!("{name}: {}", done_words(verb, wish)),
            Ok(_) => {}
            Err(why) => {
                wrong += 1;
                eprintln!("millrace: {name}: {why}");
            }
        }
        told.push(serde_json::json!({ "connector": name, "wish": answer.as_ref().ok(), "error": answer.as_ref().err() }));
    }
    if args.json {
        say!("{}", serde_json::to_string_pretty(&told).map_err(failed)?);
    }
    Ok(if wrong == 0 { Exit::Fine } else { Exit::Failed })
}

fn done_words(verb: Verb, wish: &DesiredConnector) -> String {
    let state = &wish.state;
    match verb {
        Verb::Restart => format!("told to restart ({state}); every worker follows within 2 s"),
        _ => format!("told to be {state}; every worker follows within 2 s, and after restarts too"),
    }
}

fn list(args: &ListArgs) -> Result<Exit, Failed> {
    let (loaded, topic) = open(&args.config)?;
    let (wishes, reports) = (topic.wishes().map_err(failed)?, topic.reports().map_err(failed)?);
    let listed = listed(&in_folder(&loaded), &wishes, &reports);
    if args.json {
        say!("{}", serde_json::to_string_pretty(&listed).map_err(failed)?);
    } else {
        say!("{}", table(&listed, now_ms()));
    }
    Ok(Exit::Fine)
}

fn listed(known: &BTreeSet<String>, wishes: &BTreeMap<String, DesiredConnector>, reports: &BTreeMap<String, WorkerReport>) -> Vec<Listed> {
    let reported = reports.values().flat_map(|report| report.connectors.iter().map(|connector| &connector.connector));
    let names: BTreeSet<&String> = known.iter().chain(wishes.keys()).chain(reported).collect();
    let of = |name: &String| {
        let on = |report: &WorkerReport| {
            let connector = report.connectors.iter().find(|connector| connector.connector == *name)?;
            Some(ListedWorker {
                state: connector.state.clone(),
                message: connector.message.clone(),
                partitions: connector.partitions.len(),
                at_ms: report.at_ms,
            })
        };
        Listed {
            connector: name.clone(),
            desired: wishes.get(name).map_or("running", |wish| wish.state.as_str()).to_owned(),
            since_ms: wishes.get(name).map(|wish| wish.at_ms),
            workers: reports.values().filter_map(|report| Some((report.worker.clone(), on(report)?))).collect(),
        }
    };
    names.into_iter().map(of).collect()
}

fn table(listed: &[Listed], now_ms: i64) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["connector", "told to be", "worker", "state", "partitions", "said", "why"]);
    for one in listed {
        if one.workers.is_empty() {
            table.add_row([&one.connector, &one.desired, "–", "–", "–", "–", "no worker reports it"]);
        }
        for (i, (worker, on)) in one.workers.iter().enumerate() {
            let (name, desired) = if i == 0 { (one.connector.as_str(), one.desired.as_str()) } else { ("", "") };
            let ago = format!("{} s ago", (now_ms - on.at_ms).max(0) / 1000);
            let partitions = on.partitions.to_string();
            table.add_row([name, desired, worker, &on.state, &partitions, &ago, on.message.as_deref().unwrap_or("")]);
        }
    }
    table.to_string()
}
