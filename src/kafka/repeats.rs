//! Words of librdkafka that come again and again are written once in a while, with how many were left out.

use std::time::{Duration, Instant};

/// How long words are not written again. While no broker can be reached, librdkafka says so about twenty times a second (measured).
const SILENCE: Duration = Duration::from_secs(30);
/// As many kinds are told apart; with more, the one that was written longest ago is forgotten.
const KINDS: usize = 16;

/// What was written, and when.
#[derive(Default)]
pub(super) struct Repeats {
    written: Vec<Written>,
}

struct Written {
    kind: String,
    at: Instant,
    left_out: u64,
}

impl Repeats {
    /// Words of this kind have come: `Some` when they are to be written, with how many of the kind were left out since the last that were.
    pub fn came(&mut self, kind: &str, now: Instant) -> Option<u64> {
        if let Some(known) = self.written.iter_mut().find(|written| written.kind == kind) {
            if now.saturating_duration_since(known.at) < SILENCE {
                known.left_out += 1;
                return None;
            }
            known.at = now;
            return Some(std::mem::take(&mut known.left_out));
        }
        if self.written.len() >= KINDS
            && let Some((oldest, _)) = self.written.iter().enumerate().min_by_key(|(_, written)| written.at)
        {
            self.written.swap_remove(oldest);
        }
        self.written.push(Written { kind: kind.to_owned(), at: now, left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_written_once_in_a_while_with_what_was_left_out() {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        let written: Vec<u64> =
            (0..1200).filter_map(|tick| repeats.came("all brokers down", begin + tick * Duration::from_millis(50))).collect();
        assert_eq!(written, [0, 599]);
        assert_eq!(repeats.came("all brokers down", begin + Duration::from_secs(600)), Some(599));
    }

    #[test]
    fn other_words_are_not_held_back() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.came("down", now), Some(0));
        assert_eq!(repeats.came("denied", now), Some(0));
        assert_eq!((repeats.came("down", now), repeats.came("denied", now)), (None, None));
    }

    #[test]
    fn so_many_kinds_are_remembered_and_no_more() {
        let (mut repeats, begin) = (Repeats::default(), Instant::now());
        for n in 0..100 {
            assert_eq!(repeats.came(&n.to_string(), begin + Duration::from_millis(n)), Some(0));
        }
        assert_eq!(repeats.written.len(), KINDS);
        assert_eq!(repeats.came("99", begin + Duration::from_secs(1)), None);
    }
}
