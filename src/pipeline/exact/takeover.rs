//! The rule of a takeover: from what an owner meant to append, and how many rows its finalized stream has, to where its successor goes on.

use super::intents::{Intent, Intents};

/// How far an owner came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Landed {
    /// Appends of the window that landed.
    pub appends: usize,
    /// Appends of the window.
    pub of: usize,
    /// Every record below this offset is finished; 0 where nothing is known beyond the committed offset.
    pub next_offset: i64,
}

/// The stream has a number of rows that none of its owner's appends could have left: someone else wrote to it, or the intents are not its
/// last ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has {rows} rows, and its owner's appends could have left {from} to {to} of them, but not this many")]
pub struct OnNoBoundary {
    /// Rows of the stream.
    pub rows: u64,
    /// The fewest that there can be.
    pub from: u64,
    /// The most.
    pub to: u64,
}

/// Which appends of the window landed, by the row count of the finalized stream.
///
/// # Errors
/// The count lies on no boundary. Nothing is guessed then.
pub fn landed(intents: &Intents, rows: u64) -> Result<Landed, OnNoBoundary> {
    let of = intents.window.len();
    let mut end = intents.base_rows;
    let mut next_offset = intents.base_next;
    let mut window = intents.window.iter();
    for appends in 0..=of {
        if end == rows {
            return Ok(Landed { appends, of, next_offset });
        }
        let Some(Intent { rows: more, next_offset: next }) = window.next() else { break };
        end += u64::from(*more);
        next_offset = *next;
    }
    Err(OnNoBoundary { rows, from: intents.base_rows, to: intents.end_rows() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn intents(window: &[(u32, i64)]) -> Intents {
        let window = window.iter().map(|(rows, next_offset)| Intent { rows: *rows, next_offset: *next_offset }).collect();
        Intents { stream: None, base_rows: 100, base_next: 1_000, window }
    }

    #[test]
    fn the_count_says_which_appends_landed() {
        let window = intents(&[(10, 1_015), (1, 1_016), (500, 2_000)]);
        for (rows, appends, next_offset) in [(100, 0, 1_000), (110, 1, 1_015), (111, 2, 1_016), (611, 3, 2_000)] {
            assert_eq!(landed(&window, rows), Ok(Landed { appends, of: 3, next_offset }), "{rows}");
        }
        for rows in [0, 99, 101, 109, 112, 610, 612, u64::MAX] {
            assert_eq!(landed(&window, rows), Err(OnNoBoundary { rows, from: 100, to: 611 }), "{rows}");
        }
        assert_eq!(landed(&intents(&[]), 100), Ok(Landed { appends: 0, of: 0, next_offset: 1_000 }));
        assert_eq!(landed(&intents(&[]), 101), Err(OnNoBoundary { rows: 101, from: 100, to: 100 }));
    }

    proptest! {
        /// Whatever prefix of the window landed, it is found; and nothing else is.
        #[test]
        fn every_prefix_is_found(appends in prop::collection::vec((1u32..1000, 1i64..1000), 0..30), cut in any::<prop::sample::Index>(), off in 1u64..1000) {
            let mut next = 1_000;
            let window: Vec<(u32, i64)> = appends.iter().map(|(rows, offsets)| { next += offsets; (*rows, next) }).collect();
            let prefix = cut.index(window.len() + 1);
            let rows = 100 + window[..prefix].iter().map(|(rows, _)| u64::from(*rows)).sum::<u64>();
            let intents = intents(&window);
            let next_offset = prefix.checked_sub(1).map_or(1_000, |last| window[last].1);
            prop_assert_eq!(landed(&intents, rows), Ok(Landed { appends: prefix, of: window.len(), next_offset }));
            let boundary = (0..=window.len()).any(|n| 100 + window[..n].iter().map(|(rows, _)| u64::from(*rows)).sum::<u64>() == rows + off);
            prop_assert_eq!(landed(&intents, rows + off).is_ok(), boundary);
        }
    }
}
