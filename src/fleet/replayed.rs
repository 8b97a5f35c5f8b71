//! Which dead letters were replayed: a note in the state topic for each partition of a dead-letter topic.
//!
//! In the state topic, because the letters themselves cannot be changed, a group's offset is one number and filters leave gaps, and a topic more would be a
//! right more: compaction keeps the last note, any machine sees it, and it outlives whoever replayed. A dead-letter topic that was deleted and made
//! again is noticed by the hash of the last letter that was replayed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::report::VERSION;
use super::state::REPLAYED;
use crate::record::OwnedRecord;

/// More ranges than this do not go into a note: replaying without a filter closes the gaps.
const RANGES_MAX: usize = 20_000;

/// The key of a partition's note.
pub fn replayed_key(topic: &str, partition: i32) -> String {
    format!("{REPLAYED}{topic}/{partition}")
}

/// The letters of one partition that were replayed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Replayed {
    /// The shapes' version.
    pub v: u32,
    /// Ranges of offsets, from and behind the last, in order, apart from each other.
    pub ranges: Vec<(i64, i64)>,
    /// The highest of them and its letter's hash.
    #[serde(default)]
    pub last: Option<(i64, String)>,
}

/// The hash by which a letter is known again.
pub fn letter_hash(letter: &OwnedRecord) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        hash.update(bytes.map_or(u64::MAX, |bytes| bytes.len() as u64).to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    part(letter.key.as_deref());
    part(letter.value.as_deref());
    for (name, value) in &letter.headers {
        part(Some(name.as_bytes()));
        part(value.as_deref());
    }
    hex::encode(hash.finalize())
}

impl Replayed {
    /// Whether the letter at this offset was replayed.
    pub fn contains(&self, offset: i64) -> bool {
        let behind = self.ranges.partition_point(|(from, _)| *from <= offset);
        behind.checked_sub(1).and_then(|at| self.ranges.get(at)).is_some_and(|(_, end)| offset < *end)
    }

    /// Notes that the letter at this offset was replayed.
    ///
    /// # Errors
    /// In words, when there would be too many gaps for a note.
    pub fn add(&mut self, offset: i64, hash: &str) -> Result<(), String> {
        self.v = VERSION;
        if self.last.as_ref().is_none_or(|(last, _)| *last <= offset) {
            self.last = Some((offset, hash.to_owned()));
        }
        if self.contains(offset) {
            return Ok(());
        }
        let at = self.ranges.partition_point(|(from, _)| *from <= offset);
        let follows = at.checked_sub(1).filter(|before| self.ranges.get(*before).is_some_and(|(_, end)| *end == offset));
        let meets = self.ranges.get(at).is_some_and(|(from, _)| *from == offset + 1);
        match (follows, meets) {
            (Some(before), true) => {
                let (_, end) = self.ranges.remove(at);
                self.ranges[before].1 = end;
            }
            (Some(before), false) => self.ranges[before].1 = offset + 1,
            (None, true) => self.ranges[at].0 = offset,
            (None, false) => self.ranges.insert(at, (offset, offset + 1)),
        }
        if self.ranges.len() > RANGES_MAX {
            return Err(format!("more than {RANGES_MAX} gaps between replayed letters: replay without a filter first"));
        }
        Ok(())
    }

    /// Whether this is about another topic of the same name: it ends before the last letter that was replayed, or holds another one there. `found`:
    /// the hash of the letter at that offset, where one was read.
    pub fn is_of_another_topic(&self, end: i64, found: Option<&str>) -> bool {
        self.last.as_ref().is_some_and(|(last, hash)| *last >= end || found.is_some_and(|found| found != hash))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn offsets_in_any_order_become_ranges() {
        let mut replayed = Replayed::default();
        for offset in [5, 3, 4, 9, 0, 1, 8, 4] {
            replayed.add(offset, &offset.to_string()).unwrap();
        }
        assert_eq!(replayed.ranges, [(0, 2), (3, 6), (8, 10)]);
        assert_eq!((0..11).filter(|offset| replayed.contains(*offset)).collect::<Vec<_>>(), [0, 1, 3, 4, 5, 8, 9]);
        replayed.add(2, "2").unwrap();
        assert_eq!(replayed.ranges, [(0, 6), (8, 10)]);
        assert_eq!(replayed.last, Some((9, "9".to_owned())));
        let again: Replayed = serde_json::from_str(&serde_json::to_string(&replayed).unwrap()).unwrap();
        assert_eq!(again, replayed);
    }

    #[test]
    fn a_topic_that_was_made_again_is_noticed() {
        let mut replayed = Replayed::default();
        assert!(!replayed.is_of_another_topic(0, None));
        replayed.add(9, "hash").unwrap();
        assert!(replayed.is_of_another_topic(9, None), "it ends before");
        assert!(replayed.is_of_another_topic(20, Some("other")));
        assert!(!replayed.is_of_another_topic(20, Some("hash")));
        assert!(!replayed.is_of_another_topic(20, None), "retention took the letter: those behind it are not replayed");
    }
}
