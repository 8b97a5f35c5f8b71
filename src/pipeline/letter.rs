//! A dead letter read back: whose record it was, why it died, and the record as it came.

use std::sync::Arc;

use crate::record::{Headers, OwnedRecord};

/// How often the record was replayed before it died again.
pub(super) const REPLAYS: &str = "__millrace.errors.replays";
pub(super) const TOPIC: &str = "__connect.errors.topic";
pub(super) const PARTITION: &str = "__connect.errors.partition";
pub(super) const OFFSET: &str = "__connect.errors.offset";

/// A dead letter.
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
        let row =
            text("__millrace.errors.value").map(|is| format!("its value is the row ({is}): the record was gone when BigQuery rejected it"));
        let cut = text("__millrace.errors.left.out").filter(|what| what.starts_with("value")).map(|what| format!("left out: {what}"));
        let place = (letter.partition, letter.offset);
        let read = Self {
            partition: place.0,
            offset: place.1,
            connector: text("__connect.errors.connector.name").unwrap_or_default(),
            stage: text("__connect.errors.stage").unwrap_or_default(),
            cause: text("__connect.errors.exception.class.name").unwrap_or_default(),
            message: text("__connect.errors.exception.message").unwrap_or_default(),
            when: text("__millrace.errors.when"),
            replays: text(REPLAYS).and_then(|text| text.parse().ok()).unwrap_or(0),
            unfit: row.or(cut),
            record: OwnedRecord { topic: Arc::from(topic), partition, offset, headers: own_headers(&letter), ..letter },
        };
        Ok(read)
    }
}

/// The record's own headers: those before the last group of ours, for a record may have been a dead letter of somebody else's before.
fn own_headers(letter: &OwnedRecord) -> Vec<(String, Option<bytes::Bytes>)> {
    let ours = letter.headers.iter().rposition(|(name, _)| name == TOPIC).unwrap_or(letter.headers.len());
    letter.headers.iter().take(ours).cloned().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use bytes::Bytes;

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
        let ours = [
            (TOPIC, "orders"),
            (PARTITION, "2"),
            (OFFSET, "77"),
            ("__connect.errors.connector.name", "c"),
            ("__connect.errors.exception.class.name", "TooShort"),
            (REPLAYS, "2"),
        ];
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
        assert!(with(("__millrace.errors.value", "row-json")).unwrap().contains("row-json"));
        assert!(with(("__millrace.errors.left.out", "value of 9 bytes (limit)")).is_some());
        assert_eq!(with(("__millrace.errors.left.out", "headers (limit)")), None, "the value is there");
    }
}
