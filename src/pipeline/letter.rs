//! The form of a dead letter, written and read: the record as it came, and headers that say whose it was and why it died.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::record::{Headers, OwnedRecord, RecordError};

// Kafka Connect's names (KIP-298, `ErrorHandlingMetrics`) where it has one.
pub(super) const TOPIC: &str = "__connect.errors.topic";
pub(super) const PARTITION: &str = "__connect.errors.partition";
pub(super) const OFFSET: &str = "__connect.errors.offset";
const CONNECTOR: &str = "__connect.errors.connector.name";
const STAGE: &str = "__connect.errors.stage";
const CLASS: &str = "__connect.errors.exception.class.name";
const MESSAGE: &str = "__connect.errors.exception.message";
/// When the record died; RFC 3339.
const WHEN: &str = "__millrace.errors.when";
/// What the letter's value is, where it is not the record's own.
const VALUE: &str = "__millrace.errors.value";
/// What was left out of a letter that the topic found too large.
const LEFT_OUT: &str = "__millrace.errors.left.out";
/// Of a value that was left out.
const VALUE_SHA256: &str = "__millrace.errors.value.sha256";
/// How often the record was replayed before it died again.
pub(super) const REPLAYS: &str = "__millrace.errors.replays";

/// A message for the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The key as it was.
    pub key: Option<Bytes>,
    /// The value as it was.
    pub value: Option<Bytes>,
    /// The record's headers as they were, then ours.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// The record's timestamp as it was, ms since the epoch.
    pub timestamp_ms: Option<i64>,
}

/// Why a letter is written.
pub(super) struct Death<'a> {
    /// What is wrong with the record.
    pub error: &'a RecordError,
    /// Whether the letter's value is the row as JSON, because Kafka no longer has the record.
    pub record_is_gone: bool,
}

/// What is left out of a letter that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The record's own headers.
    Headers,
    /// Its value too. The cause, the coordinates and the value's hash stay.
    Value,
}

impl Cut {
    /// In the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Headers, Self::Value];
}

impl Letter {
    /// The letter of a record that died now (microseconds since the epoch) in this connector.
    pub(super) fn of(record: OwnedRecord, why: &Death<'_>, connector: &str, now_us: i64) -> Self {
        let mut headers = record.headers;
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), Some(Bytes::from(value))));
        add(TOPIC, record.topic.to_string());
        add(PARTITION, record.partition.to_string());
        add(OFFSET, record.offset.to_string());
        add(CONNECTOR, connector.to_owned());
        add(STAGE, why.error.stage.as_str().to_owned());
        add(CLASS, why.error.class.as_str().to_owned());
        add(MESSAGE, why.error.message.clone());
        add(WHEN, rfc3339(now_us));
        if why.record_is_gone {
            add(VALUE, "row-json".to_owned());
        }
        Self { key: record.key, value: record.value, headers, timestamp_ms: record.timestamp_ms }
    }

    /// The letter without what is cut, and a note of it; `why` are the topic's words.
    pub(super) fn shortened(mut self, cut: Cut, why: &str) -> Self {
        self.headers.retain(|(name, _)| name.starts_with("__connect.errors.") || name.starts_with("__millrace.errors."));
        let mut add = |name: &str, value: String| self.headers.push((name.to_owned(), Some(Bytes::from(value))));
        match (cut, self.value.take()) {
            (Cut::Headers, value) => {
                add(LEFT_OUT, format!("headers ({why})"));
                self.value = value;
            }
            (Cut::Value, Some(value)) => {
                add(LEFT_OUT, format!("value of {} bytes ({why})", value.len()));
                add(VALUE_SHA256, hex::encode(Sha256::digest(&value)));
            }
            (Cut::Value, None) => {}
        }
        self
    }
}

/// A dead letter read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLetter {
    /// Its partition in the dead-letter topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The connector that wrote it.
    pub connector: String,
    /// Where the record failed.
    pub stage: String,
    /// The class of its error.
    pub cause: String,
    /// The error's message.
    pub message: String,
    /// When the record died, as the letter says it; RFC 3339.
    pub when: Option<String>,
    /// How often it was replayed before.
    pub replays: u32,
    /// Why it cannot be replayed, where the record's own value is not in it.
    pub unfit: Option<String>,
    /// The record as it came: its own topic, partition, offset and headers.
    pub record: OwnedRecord,
}

impl ReadLetter {
    /// Reads a record of a dead-letter topic.
    ///
    /// # Errors
    /// In words, when it does not say which record it was: somebody else wrote it.
    pub fn read(letter: OwnedRecord) -> Result<Self, String> {
        let text = |name: &str| letter.last(name).flatten().and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
        let missing = |name: &str| format!("header {name} is missing or cannot be read");
        let topic = text(TOPIC).ok_or_else(|| missing(TOPIC))?;
        let partition = text(PARTITION).and_then(|text| text.parse().ok()).ok_or_else(|| missing(PARTITION))?;
        let offset = text(OFFSET).and_then(|text| text.parse().ok()).ok_or_else(|| missing(OFFSET))?;
        // A row in place of its record, or a value that was left out.
        let row = text(VALUE).map(|is| format!("its value is the row ({is}): the record was gone when BigQuery rejected it"));
        let cut = text(LEFT_OUT).filter(|what| what.starts_with("value")).map(|what| format!("left out: {what}"));
        let place = (letter.partition, letter.offset);
        let read = Self {
            partition: place.0,
            offset: place.1,
            connector: text(CONNECTOR).unwrap_or_default(),
            stage: text(STAGE).unwrap_or_default(),
            cause: text(CLASS).unwrap_or_default(),
            message: text(MESSAGE).unwrap_or_default(),
            when: text(WHEN),
            replays: text(REPLAYS).and_then(|text| text.parse().ok()).unwrap_or(0),
            unfit: row.or(cut),
            record: OwnedRecord { topic: Arc::from(topic), partition, offset, headers: own_headers(&letter), ..letter },
        };
        Ok(read)
    }
}

/// The record's own headers: those before the last group of ours, for a record may have been a dead letter of somebody else's before.
fn own_headers(letter: &OwnedRecord) -> Vec<(String, Option<Bytes>)> {
    let ours = letter.headers.iter().rposition(|(name, _)| name == TOPIC).unwrap_or(letter.headers.len());
    letter.headers.iter().take(ours).cloned().collect()
}

/// A moment (microseconds since the epoch) as people read it.
pub(super) fn rfc3339(wall_us: i64) -> String {
    chrono::DateTime::from_timestamp_micros(wall_us)
        .map(|at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
        .unwrap_or_else(|| format!("{wall_us} us since the epoch"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &str)]) -> OwnedRecord {
        OwnedRecord {
            topic: Arc::from("dead"),
            partition: 3,
            offset: 9,
            timestamp_ms: Some(5),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"v")),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(Bytes::from((*value).to_owned())))).collect(),
        }
    }

    #[test]
    fn the_record_comes_back_as_it_was_also_from_a_letter_of_a_letter() {
        let ours = [(TOPIC, "orders"), (PARTITION, "2"), (OFFSET, "77"), (CONNECTOR, "c"), (CLASS, "TooShort"), (REPLAYS, "2")];
        let mut all = vec![("trace", "1"), (TOPIC, "elsewhere"), (PARTITION, "8"), (OFFSET, "9")];
        all.extend(ours);
        let read = ReadLetter::read(letter(&all)).unwrap();
        assert_eq!((&*read.record.topic, read.record.partition, read.record.offset), ("orders", 2, 77));
        assert_eq!((read.partition, read.offset, read.replays, read.cause.as_str()), (3, 9, 2, "TooShort"));
        assert_eq!(read.record.headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["trace", TOPIC, PARTITION, OFFSET]);
        assert_eq!((read.record.timestamp_ms, read.record.value.as_deref(), read.unfit), (Some(5), Some(b"v".as_slice()), None));
    }

    #[test]
    fn what_holds_no_record_is_said() {
        let place = [(TOPIC, "orders"), (PARTITION, "2"), (OFFSET, "77")];
        assert!(ReadLetter::read(letter(&place[..2])).unwrap_err().contains(OFFSET));
        let with = |more: (&'static str, &'static str)| {
            let mut all = place.to_vec();
            all.push(more);
            ReadLetter::read(letter(&all)).unwrap().unfit
        };
        assert!(with((VALUE, "row-json")).unwrap().contains("row-json"));
        assert!(with((LEFT_OUT, "value of 9 bytes (limit)")).is_some());
        assert_eq!(with((LEFT_OUT, "headers (limit)")), None, "the value is there");
    }

    #[test]
    fn a_letter_that_is_too_large_loses_headers_first() {
        let letter = Letter {
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"abc")),
            headers: vec![("mine".into(), None), (TOPIC.into(), Some(Bytes::from_static(b"t")))],
            timestamp_ms: Some(1),
        };
        let first = letter.shortened(Cut::Headers, "limit");
        assert!(first.headers.iter().all(|(n, _)| n != "mine"));
        assert_eq!(first.value.as_deref(), Some(b"abc".as_slice()));
        let second = first.shortened(Cut::Value, "limit");
        assert_eq!(second.value, None);
        let hash = second.headers.iter().find(|(n, _)| n == VALUE_SHA256).unwrap().1.clone().unwrap();
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(rfc3339(1_700_000_000_123_456), "2023-11-14T22:13:20.123Z");
    }
}
