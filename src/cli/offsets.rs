//! `millrace offsets`: where a connector's group stands, and setting that while the connector is stopped.

use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::Exit;
use super::connectors::{Failed, failed, now_ms};
use super::run::ConfigArgs;
use super::stdout::say;
use crate::config::{ConnectorConfig, Loaded};
use crate::kafka::{CommittedPartition, GroupOffsets, GroupSettings, NotSet};
use crate::record::TopicPartition;

const TIMEOUT: Duration = Duration::from_secs(10);

/// What is done with offsets.
#[derive(Debug, Subcommand)]
pub enum OffsetsCommand {
    /// Show committed, first and end offset and lag of every partition; works while the connector runs.
    Show(ShowArgs),
    /// Set committed offsets, and say which records come again or are left out. Only while the connector is stopped: `millrace connectors stop`.
    #[command(after_help = super::examples::OFFSETS_SET)]
    Set(SetArgs),
}

/// Whose offsets are shown.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The connector: its file's name without `.toml`.
    connector: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which offsets are set.
#[derive(Debug, Args)]
pub struct SetArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The connector: its file's name without `.toml`.
    connector: String,
    /// Where: `earliest`, `latest`, an offset, a moment (`2026-03-01T12:00:00Z`), or how long ago (`2h`).
    #[arg(long, value_parser = place)]
    to: To,
    /// Only partitions of this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition; may be given several times.
    #[arg(long = "partition")]
    partitions: Vec<i32>,
    /// Say what would be set, and set nothing.
    #[arg(long)]
    dry_run: bool,
    /// Also where something is stored beside the offset: it is lost. An exactly-once connector knows by it which rows have landed.
    #[arg(long)]
    force: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Where offsets are set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Earliest,
    Latest,
    Offset(i64),
    /// Milliseconds since the epoch.
    At(i64),
    Ago(Duration),
}

fn place(text: &str) -> Result<To, String> {
    match text {
        "earliest" => return Ok(To::Earliest),
        "latest" => return Ok(To::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse::<i64>() {
        return if offset >= 0 { Ok(To::Offset(offset)) } else { Err(format!("{offset} is below 0")) };
    }
    if let Ok(at) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(To::At(at.timestamp_millis()));
    }
    humantime::parse_duration(text).map(To::Ago).map_err(|_| {
        format!("`{text}` is not `earliest`, `latest`, an offset, a moment such as `2026-03-01T12:00:00Z` or a time ago such as `2h`")
    })
}

/// A partition in the answer.
#[derive(Debug, Serialize)]
struct Shown {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    first: Option<i64>,
    end: Option<i64>,
    /// Records that are left, at most: gaps between offsets count.
    lag: Option<i64>,
    /// Whether something is stored beside the offset.
    has_metadata: bool,
    /// Where it is set to.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_to: Option<i64>,
    /// Records that come again, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    again: Option<i64>,
    /// Records that are left out, at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<i64>,
}

impl Shown {
    fn of(known: &CommittedPartition) -> Self {
        let position = known.committed.or(known.first);
        Self {
            topic: known.partition.topic.to_string(),
            partition: known.partition.partition,
            committed: known.committed,
            first: known.first,
            end: known.end,
            lag: known.end.zip(position).map(|(end, position)| (end - position.max(known.first.unwrap_or(0))).max(0)),
            has_metadata: known.metadata.is_some(),
            set_to: None,
            again: None,
            left_out: None,
        }
    }

    /// With what setting it means. Without a committed offset nothing was read that could come again.
    fn set(known: &CommittedPartition, to: i64) -> Self {
        let first = known.first.unwrap_or(0);
        let (again, left_out) = match known.committed {
            Some(committed) => ((committed - to.max(first)).max(0), (to - committed.max(first)).max(0)),
            None => (0, (to - first).max(0)),
        };
        Self { set_to: Some(to), again: Some(again), left_out: Some(left_out), ..Self::of(known) }
    }
}

/// Runs the command.
pub fn offsets(command: &OffsetsCommand) -> Exit {
    let done = match command {
        OffsetsCommand::Show(args) => show(args),
        OffsetsCommand::Set(args) => set(args),
    };
    done.unwrap_or_else(Failed::say)
}

/// The connector of this name.
pub(super) fn find<'a>(loaded: &'a Loaded, name: &str) -> Result<&'a ConnectorConfig, Failed> {
    loaded.connectors.iter().find(|connector| connector.name == name).ok_or_else(|| {
        let folder = loaded.connectors_folder.display();
        let why = if loaded.refused.contains_key(name) { "its file has mistakes" } else { "there is no such file" };
        Failed::Usage(format!("no connector `{name}` in {folder}: {why}"))
    })
}

fn group(loaded: &Loaded, connector: &ConnectorConfig) -> Result<GroupOffsets, Failed> {
    GroupOffsets::new(&GroupSettings::of(&loaded.fleet, connector, 0)).map_err(failed)
}

fn show(args: &ShowArgs) -> Result<Exit, Failed> {
    let loaded = args.config.load_usable().map_err(Failed::Said)?;
    let all = group(&loaded, find(&loaded, &args.connector)?)?.all(TIMEOUT).map_err(failed)?;
    print(&all.iter().map(Shown::of).collect::<Vec<_>>(), args.json)?;
    Ok(Exit::Fine)
}

fn set(args: &SetArgs) -> Result<Exit, Failed> {
    let loaded = args.config.load_usable().map_err(Failed::Said)?;
    let connector = find(&loaded, &args.connector)?;
    let group = group(&loaded, connector)?;
    let mut all = group.all(TIMEOUT).map_err(failed)?;
    let there = all.iter().map(|known| known.partition.to_string()).collect::<Vec<_>>().join(", ");
    all.retain(|known| args.topic.as_ref().is_none_or(|topic| **topic == *known.partition.topic));
    all.retain(|known| args.partitions.is_empty() || args.partitions.contains(&known.partition.partition));
    if all.is_empty() {
        return Err(Failed::Usage(format!("--topic and --partition leave no partition of the connector: it has {there}")));
    }
    let targets = targets(&group, &all, args.to)?;
    let shown: Vec<Shown> = all.iter().zip(&targets).map(|(known, to)| Shown::set(known, *to)).collect();
    print(&shown, args.json)?;
    let changed: Vec<(TopicPartition, i64)> = all
        .iter()
        .zip(&targets)
        .filter(|(known, to)| known.committed != Some(**to))
        .map(|(known, to)| (known.partition.clone(), *to))
        .collect();
    let stop_first = || format!("stop the connector on every worker first: millrace connectors stop {}", connector.name);
    // Some brokers know no such question: then the commit itself is the answer.
    let members = group.members(TIMEOUT).unwrap_or_else(|error| {
        eprintln!("millrace: who reads in the group is not known ({error}); its coordinator refuses offsets while somebody does");
        Vec::new()
    });
    if !members.is_empty() {
        return Err(Failed::Broken(format!("group {} has members ({}): {}", connector.group_id(), members.join(", "), stop_first())));
    }
    let beside = all.iter().filter(|known| known.metadata.is_some() && changed.iter().any(|(partition, _)| *partition == known.partition));
    let beside: Vec<String> = beside.map(|known| known.partition.to_string()).collect();
    if !beside.is_empty() && !args.force {
        return Err(Failed::Broken(format!(
            "something is stored beside the offsets of {}: an exactly-once connector knows by it which rows have landed, and after a change holds or \
             counts what it cannot know; --force drops it",
            beside.join(", ")
        )));
    }
    if args.dry_run || changed.is_empty() {
        say(args.json, if args.dry_run { "nothing was set: --dry-run" } else { "nothing to set" });
        return Ok(Exit::Fine);
    }
    match group.set(&changed, TIMEOUT) {
        Ok(()) => {
            say(args.json, &format!("set; millrace connectors resume {} goes on from there", connector.name));
            Ok(Exit::Fine)
        }
        Err(NotSet::Members(words)) => {
            Err(Failed::Broken(format!("group {} has members ({words}), nothing was set: {}", connector.group_id(), stop_first())))
        }
        Err(NotSet::Kafka(error)) => Err(failed(error)),
    }
}

fn say(json: bool, words: &str) {
    if json {
        eprintln!("{words}");
    } else {
        say!("{words}");
    }
}

fn targets(group: &GroupOffsets, all: &[CommittedPartition], to: To) -> Result<Vec<i64>, Failed> {
    let at_ms = match to {
        To::At(at_ms) => Some(at_ms),
        To::Ago(span) => Some(now_ms() - i64::try_from(span.as_millis()).unwrap_or(i64::MAX).min(now_ms())),
        _ => None,
    };
    let partitions: Vec<TopicPartition> = all.iter().map(|known| known.partition.clone()).collect();
    let times = at_ms.map(|at_ms| group.at_time(&partitions, at_ms, TIMEOUT)).transpose().map_err(failed)?;
    let target = |known: &CommittedPartition| {
        let partition = &known.partition;
        let (Some(first), Some(end)) = (known.first, known.end) else {
            return Err(Failed::Broken(format!("{partition}: its leader does not answer, try again later")));
        };
        match to {
            To::Earliest => Ok(first),
            To::Latest => Ok(end),
            To::Offset(offset) if (first..=end).contains(&offset) => Ok(offset),
            To::Offset(offset) => Err(Failed::Usage(format!("{partition}: {offset} is outside of what is there, {first} to {end}"))),
            // No record is as young: behind the last one.
            To::At(_) | To::Ago(_) => {
                Ok(times.as_ref().and_then(|times| times.get(partition)).map_or(end, |offset| (*offset).clamp(first, end)))
            }
        }
    };
    all.iter().map(target).collect()
}

fn print(shown: &[Shown], json: bool) -> Result<(), Failed> {
    if json {
        say!("{}", serde_json::to_string_pretty(shown).map_err(failed)?);
        return Ok(());
    }
    let sets = shown.iter().any(|one| one.set_to.is_some());
    let mut table = Table::new();
    let mut heads = vec!["partition", "committed", "first", "end", "lag"];
    heads.extend(sets.then_some(["set to", "come again", "left out"]).into_iter().flatten());
    table.load_preset(UTF8_HORIZONTAL_ONLY).set_header(heads);
    let number = |n: Option<i64>| n.map_or_else(|| "–".to_owned(), |n| n.to_string());
    for one in shown {
        let mark = if one.has_metadata { " *" } else { "" };
        let mut cells = vec![format!("{}[{}]", one.topic, one.partition), number(one.committed) + mark];
        cells.extend([one.first, one.end, one.lag].map(number));
        if sets {
            cells.extend([one.set_to, one.again, one.left_out].map(number));
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say!("{table}");
    if shown.iter().any(|one| one.has_metadata) {
        say!("* something is stored beside it");
    }
    let sum = |of: fn(&Shown) -> Option<i64>| shown.iter().filter_map(of).sum::<i64>();
    if sets {
        say!("at most {} records come again, {} are left out (gaps between offsets count)", sum(|one| one.again), sum(|one| one.left_out));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(place("earliest"), Ok(To::Earliest));
        assert_eq!(place("42"), Ok(To::Offset(42)));
        assert_eq!(place("1970-01-01T00:00:01+00:00"), Ok(To::At(1000)));
        assert_eq!(place("2h"), Ok(To::Ago(Duration::from_secs(7200))));
        assert!(place("-1").is_err() && place("yesterday").is_err());
    }

    #[test]
    fn what_comes_again_and_what_is_left_out() {
        let known = |committed| CommittedPartition {
            partition: TopicPartition::new("t", 0),
            first: Some(100),
            end: Some(500),
            committed,
            metadata: None,
        };
        let counts = |committed, to| {
            let shown = Shown::set(&known(committed), to);
            (shown.again.unwrap(), shown.left_out.unwrap(), shown.lag.unwrap())
        };
        assert_eq!(counts(Some(300), 120), (180, 0, 200));
        assert_eq!(counts(Some(300), 500), (0, 200, 200));
        assert_eq!(counts(None, 150), (0, 50, 400), "nothing was read before");
        assert_eq!(counts(Some(20), 100), (0, 0, 400), "what retention deleted does not come again");
        assert_eq!(counts(Some(20), 130), (0, 30, 400), "nor is it left out by anybody");
    }
}
