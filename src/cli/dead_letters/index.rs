//! A dead-letter topic read once: which letters there are, which of them were replayed, which are meant.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use clap::Args;

use super::TIMEOUT;
use crate::cli::connectors::{Failed, failed, now_ms};
use crate::config::{ConnectorConfig, FleetConfig};
use crate::fleet::{Replayed, StateTopic, letter_hash, replayed_key};
use crate::kafka::{GroupSettings, TopicScan};
use crate::pipeline::{ReadLetter, TableRoutes};

/// Which letters are meant; all without any of these.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Of this cause, such as `TruncatedData`; may be given several times.
    #[arg(long)]
    cause: Vec<String>,
    /// Whose records come from this topic.
    #[arg(long)]
    topic: Option<String>,
    /// Whose records come from this partition; may be given several times.
    #[arg(long)]
    partition: Vec<i32>,
    /// Whose records have these offsets in their partition, both included: `100-200`, `100-`, `-200`.
    #[arg(long, value_parser = offsets, allow_hyphen_values = true)]
    offsets: Option<(i64, i64)>,
    /// Written since then: a moment (`2026-03-01T12:00:00Z`) or how long ago (`2h`).
    #[arg(long, value_parser = since)]
    since: Option<i64>,
    /// Whose records go to this table by the present rules: `dataset.table` or `project.dataset.table`.
    #[arg(long)]
    table: Option<String>,
}

fn offsets(text: &str) -> Result<(i64, i64), String> {
    let wrong = || format!("`{text}` is no range of offsets such as `100-200`, `100-`, `-200`");
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let number = |part: &str, without: i64| if part.is_empty() { Ok(without) } else { part.parse().map_err(|_| wrong()) };
    Ok((number(from, 0)?, number(to, i64::MAX)?))
}

fn since(text: &str) -> Result<i64, String> {
    if let Ok(at) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(at.timestamp_millis());
    }
    let ago = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no moment such as `2026-03-01T12:00:00Z`, nor a time ago such as `2h`"))?;
    Ok(now_ms() - i64::try_from(ago.as_millis()).unwrap_or(i64::MAX).min(now_ms()))
}

impl Filter {
    /// Whether a letter is meant.
    pub fn takes(&self, letter: &ReadLetter, routes: &TableRoutes) -> bool {
        let record = &letter.record;
        let written_ms =
            || letter.when.as_ref().and_then(|when| chrono::DateTime::parse_from_rfc3339(when).ok()).map(|when| when.timestamp_millis());
        let table = || routes.table_of(&record.topic).map(|table| table.to_string()).unwrap_or_default();
        (self.cause.is_empty() || self.cause.contains(&letter.cause))
            && self.topic.as_deref().is_none_or(|topic| topic == &*record.topic)
            && (self.partition.is_empty() || self.partition.contains(&record.partition))
            && self.offsets.is_none_or(|(from, to)| (from..=to).contains(&record.offset))
            && self.since.is_none_or(|since| written_ms().is_some_and(|written| written >= since))
            && self.table.as_ref().is_none_or(|wanted| table() == *wanted || table().ends_with(&format!(".{wanted}")))
    }
}

/// A letter without its record.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its place in the dead-letter topic.
    pub place: (i32, i64),
    /// Its record's.
    pub record: (Arc<str>, i32, i64),
    pub replays: u32,
    pub cause: Arc<str>,
    pub replayed: bool,
    pub meant: bool,
    pub unfit: bool,
}

/// A cause, how often, and one letter of it.
#[derive(Debug, Default)]
pub(super) struct OfCause {
    pub letters: u64,
    pub replayed: u64,
    pub example: Option<ReadLetter>,
}

/// What was found.
#[derive(Default)]
pub(super) struct Index {
    pub entries: Vec<Entry>,
    pub by_cause: BTreeMap<String, OfCause>,
    /// Letters of other connectors in the same topic.
    pub of_others: u64,
    /// Records that are no letters of millrace's.
    pub not_understood: u64,
    /// By partition.
    pub replayed: BTreeMap<i32, Replayed>,
    /// What is to be said.
    pub remarks: Vec<String>,
}

/// Reads the notes of what was replayed of a topic.
pub(super) fn replayed_of(state: &StateTopic, topic: &str) -> Result<BTreeMap<i32, Replayed>, Failed> {
    let values = state.values().map_err(failed)?;
    let prefix = replayed_key(topic, 0);
    let prefix = prefix.trim_end_matches('0');
    let notes = values.into_iter().filter_map(|(key, value)| {
        let partition = key.strip_prefix(prefix)?.parse().ok()?;
        Some((partition, serde_json::from_slice(&value).ok()?))
    });
    Ok(notes.collect())
}

/// Reads the whole topic.
pub(super) fn read(
    fleet: &FleetConfig,
    connector: &ConnectorConfig,
    filter: &Filter,
    replayed: BTreeMap<i32, Replayed>,
) -> Result<Index, Failed> {
    let topic = connector.dead_letter_topic();
    let routes = TableRoutes::new(&connector.table, &fleet.bigquery.project);
    let mut scan = TopicScan::open(&GroupSettings::of(fleet, connector, 0), &topic, TIMEOUT).map_err(failed)?;
    let mut index = Index { replayed, ..Index::default() };
    let (mut causes, mut hashes): (HashMap<String, Arc<str>>, HashMap<i32, String>) = Default::default();
    while let Some(record) = scan.next_record().map_err(failed)? {
        let place = (record.partition, record.offset);
        if index.replayed.get(&place.0).and_then(|replayed| replayed.last.as_ref()).is_some_and(|(last, _)| *last == place.1) {
            hashes.insert(place.0, letter_hash(&record));
        }
        let letter = match ReadLetter::read(record) {
            Ok(letter) if letter.connector == connector.name => letter,
            Ok(_) => {
                index.of_others += 1;
                continue;
            }
            Err(_) => {
                index.not_understood += 1;
                continue;
            }
        };
        let cause = causes.entry(letter.cause.clone()).or_insert_with(|| Arc::from(letter.cause.as_str())).clone();
        let meant = filter.takes(&letter, &routes);
        index.entries.push(Entry {
            place,
            record: (letter.record.topic.clone(), letter.record.partition, letter.record.offset),
            replays: letter.replays,
            cause,
            replayed: false,
            meant,
            unfit: letter.unfit.is_some(),
        });
        if meant {
            let of_cause = index.by_cause.entry(letter.cause.clone()).or_default();
            of_cause.letters += 1;
            of_cause.example.get_or_insert(letter);
        }
    }
    for cause in filter.cause.iter().filter(|cause| !causes.contains_key(*cause)) {
        index.remarks.push(no_such_cause(cause, causes.keys()));
    }
    let forget: Vec<i32> = index
        .replayed
        .iter()
        .filter(|(partition, replayed)| {
            let end = scan.ends().get(partition).copied().unwrap_or(0);
            replayed.is_of_another_topic(end, hashes.get(partition).map(String::as_str))
        })
        .map(|(partition, _)| *partition)
        .collect();
    for partition in forget {
        index.replayed.remove(&partition);
        index
            .remarks
            .push(format!("{topic}[{partition}] was made again since letters of it were replayed: none of them counts as replayed"));
    }
    for entry in &mut index.entries {
        entry.replayed = index.replayed.get(&entry.place.0).is_some_and(|replayed| replayed.contains(entry.place.1));
        if entry.replayed
            && entry.meant
            && let Some(of_cause) = index.by_cause.get_mut(&*entry.cause)
        {
            of_cause.replayed += 1;
        }
    }
    Ok(index)
}

/// A cause that was asked for and that no letter has: perhaps it is misspelt.
fn no_such_cause<'a>(cause: &str, known: impl Iterator<Item = &'a String>) -> String {
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    known.sort_unstable();
    let known = if known.is_empty() { "there are no letters".to_owned() } else { format!("there are {}", known.join(", ")) };
    format!("no letter has the cause `{cause}`: {known}")
}

/// Which letters a replay takes, and why it leaves others.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Places in the dead-letter topic, in order.
    pub places: Vec<(i32, i64)>,
    pub replayed_before: u64,
    /// Other letters of a record of which one is taken or was replayed.
    pub of_same_record: u64,
    pub unfit: u64,
}

/// Chooses. Of several letters of one record (a crash wrote it twice; it was replayed and died again) the one that was replayed most often stands for all.
pub(super) fn choose(entries: &[Entry], again: bool) -> Chosen {
    let mut chosen = Chosen::default();
    let mut records: HashMap<(&str, i32, i64), Vec<&Entry>> = HashMap::new();
    for entry in entries {
        records.entry((&entry.record.0, entry.record.1, entry.record.2)).or_default().push(entry);
    }
    for letters in records.values() {
        let newest = letters.iter().map(|entry| entry.replays).max().unwrap_or(0);
        let of_newest = || letters.iter().filter(|entry| entry.replays == newest);
        let meant = letters.iter().filter(|entry| entry.meant).count() as u64;
        let Some(one) = of_newest().find(|entry| entry.meant && !entry.unfit) else {
            let unfit = letters.iter().filter(|entry| entry.meant && entry.unfit).count() as u64;
            chosen.unfit += unfit;
            chosen.of_same_record += meant - unfit;
            continue;
        };
        if !again && of_newest().any(|entry| entry.replayed) {
            chosen.replayed_before += meant;
            continue;
        }
        chosen.of_same_record += meant - 1;
        chosen.places.push(one.place);
    }
    chosen.places.sort_unstable();
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn entry(place: i64, record: i64, replays: u32, replayed: bool) -> Entry {
        Entry {
            place: (0, place),
            record: (Arc::from("t"), 0, record),
            replays,
            cause: Arc::from("c"),
            replayed,
            meant: true,
            unfit: false,
        }
    }

    #[test]
    fn of_one_record_one_letter_is_taken_and_once_only() {
        let mut entries = vec![
            entry(0, 7, 0, true),  // replayed, and
            entry(1, 7, 1, false), // died again: this one stands for it
            entry(2, 8, 0, false),
            entry(3, 8, 0, false), // written twice
            entry(4, 9, 0, false),
            entry(5, 9, 0, true), // the other of the two was replayed
            entry(6, 10, 0, true),
            entry(7, 11, 0, false),
        ];
        entries[7].unfit = true;
        let chosen = choose(&entries, false);
        assert_eq!(chosen.places, [(0, 1), (0, 2)]);
        assert_eq!((chosen.replayed_before, chosen.of_same_record, chosen.unfit), (3, 2, 1));
        assert_eq!(choose(&entries, true).places, [(0, 1), (0, 2), (0, 4), (0, 6)]);
        entries[2].meant = false;
        assert_eq!(choose(&entries, false).places, [(0, 1), (0, 3)]);
    }

    #[test]
    fn a_cause_that_no_letter_has_is_said_with_those_that_are_there() {
        let known = ["TruncatedData".to_owned(), "InvalidUtf8".to_owned()];
        assert_eq!(no_such_cause("Truncated", known.iter()), "no letter has the cause `Truncated`: there are InvalidUtf8, TruncatedData");
        assert_eq!(no_such_cause("Truncated", [].iter()), "no letter has the cause `Truncated`: there are no letters");
    }

    #[test]
    fn ranges_of_offsets_are_read() {
        assert_eq!(offsets("5-9"), Ok((5, 9)));
        assert_eq!(offsets("5-"), Ok((5, i64::MAX)));
        assert_eq!(offsets("-9"), Ok((0, 9)));
        assert!(offsets("5").is_err() && offsets("a-b").is_err() && since("soon").is_err());
    }
}
