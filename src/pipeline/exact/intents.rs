//! What an owner says before it appends: which rows it is about to put where in its stream. Stored beside the consumer group's offset.
//!
//! A partition's topic goes to one table, so a partition has one stream at a time; and an append's intent is committed only when every
//! other record below its end is finished (durable letters included). So each boundary of the window is a place where another owner can go
//! on, and no offset needs to be remembered beside it.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

/// The most bytes that intents may take as text. A broker takes 4,096 (`offset.metadata.max.bytes`, its default), which leaves room for
/// lower settings.
pub const METADATA_BYTES_MAX: usize = 3 * 1024;
/// What our metadata begins with, before its version.
const NAME: &str = "millrace/";
/// The version of this form.
const VERSION: &str = "1";
/// Stands for nothing: no stream, no append in the window.
const NONE: &str = "-";

/// One append: all of its rows land, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// Its rows; never 0.
    pub rows: u32,
    /// Every record below this offset is finished once the append has landed.
    pub next_offset: i64,
}

/// What an owner may have done to its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intents {
    /// The stream's full name; none before the first append.
    pub stream: Option<Arc<str>>,
    /// Rows of the stream that are known to have landed.
    pub base_rows: u64,
    /// Every record below this offset is finished with those rows; 0 where nothing is known beyond the committed offset.
    pub base_next: i64,
    /// Appends that may have been sent, in order: each begins where the one before ends.
    pub window: Vec<Intent>,
}

/// Metadata that are no intents, and what may be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotIntents {
    /// Another program's.
    #[error("metadata of another program")]
    Foreign,
    /// A later millrace's.
    #[error("intents of a later version of millrace")]
    Newer,
    /// Ours, but not as they were written.
    #[error("damaged intents")]
    Garbled,
}

impl Intents {
    /// As text: `millrace/1 <checksum> <base rows> <base next> <rows+offsets,..> <stream>`. The stream comes last: a table's name may hold
    /// spaces.
    pub fn encode(&self) -> Arc<str> {
        use std::fmt::Write as _;
        let mut window = String::new();
        let mut from = self.base_next;
        for intent in &self.window {
            let comma = if window.is_empty() { "" } else { "," };
            // Writing to a string never fails.
            let _ = write!(window, "{comma}{}+{}", intent.rows, intent.next_offset - from);
            from = intent.next_offset;
        }
        let window = if window.is_empty() { NONE } else { &window };
        let body = format!("{} {} {window} {}", self.base_rows, self.base_next, self.stream.as_deref().unwrap_or(NONE));
        Arc::from(format!("{NAME}{VERSION} {} {body}", checksum(&body)))
    }

    /// From text.
    ///
    /// # Errors
    /// What it is instead. Nothing is guessed: a single changed character is an error.
    pub fn decode(text: &str) -> Result<Self, NotIntents> {
        let rest = text.strip_prefix(NAME).ok_or(NotIntents::Foreign)?;
        let (version, rest) = rest.split_once(' ').ok_or(NotIntents::Garbled)?;
        if version != VERSION {
            let is_number = !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
            return Err(if is_number { NotIntents::Newer } else { NotIntents::Garbled });
        }
        let (sum, body) = rest.split_once(' ').ok_or(NotIntents::Garbled)?;
        if sum != checksum(body) {
            return Err(NotIntents::Garbled);
        }
        read(body).ok_or(NotIntents::Garbled)
    }

    /// Rows of the stream when all of the window has landed.
    pub fn end_rows(&self) -> u64 {
        self.base_rows + self.window_rows()
    }

    /// Rows of the window.
    pub fn window_rows(&self) -> u64 {
        self.window.iter().map(|intent| u64::from(intent.rows)).sum()
    }
}

fn checksum(body: &str) -> String {
    format!("{:016x}", xxh3_64(body.as_bytes()))
}

fn read(body: &str) -> Option<Intents> {
    let mut parts = body.splitn(4, ' ');
    let base_rows = parts.next()?.parse().ok()?;
    let base_next: i64 = parts.next()?.parse().ok()?;
    let window = parts.next()?;
    let stream = Some(parts.next()?).filter(|stream| *stream != NONE).map(Arc::from);
    let mut intents = Intents { stream, base_rows, base_next, window: Vec::new() };
    if window != NONE {
        let mut from = base_next;
        for one in window.split(',') {
            let (rows, offsets) = one.split_once('+')?;
            let (rows, offsets): (u32, i64) = (rows.parse().ok()?, offsets.parse().ok()?);
            from = from.checked_add(offsets)?;
            if rows == 0 || offsets <= 0 {
                return None;
            }
            intents.window.push(Intent { rows, next_offset: from });
        }
    }
    // Rows without a stream land nowhere.
    (base_next >= 0 && (intents.stream.is_some() || intents.window.is_empty())).then_some(intents)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some_intents() -> impl Strategy<Value = Intents> {
        let window = prop::collection::vec((1..=u32::MAX, 1i64..1 << 40), 0..40);
        (prop::option::of("[ -~üß]{1,60}"), any::<u64>(), 0i64..1 << 50, window).prop_map(|(stream, base_rows, base_next, window)| {
            let mut next_offset = base_next;
            let window = window.into_iter().map(|(rows, offsets)| {
                next_offset += offsets;
                Intent { rows, next_offset }
            });
            let stream = stream.filter(|stream| stream != NONE);
            let window = if stream.is_some() { window.collect() } else { Vec::new() };
            Intents { stream: stream.map(Arc::from), base_rows, base_next, window }
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(intents in some_intents()) {
            prop_assert_eq!(Intents::decode(&intents.encode()), Ok(intents));
        }

        #[test]
        fn a_changed_byte_is_never_believed(intents in some_intents(), at in any::<prop::sample::Index>(), to in 0x20u8..0x7F) {
            let text = intents.encode();
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            prop_assert!(Intents::decode(&String::from_utf8_lossy(&bytes)).is_err());
        }

        #[test]
        fn a_cut_text_is_never_believed(intents in some_intents(), at in any::<prop::sample::Index>()) {
            let text: Vec<char> = intents.encode().chars().collect();
            let cut: String = text[..at.index(text.len())].iter().collect();
            prop_assert!(Intents::decode(&cut).is_err());
        }
    }

    #[test]
    fn strangers_are_told_apart() {
        assert_eq!(Intents::decode("spark: batch 17"), Err(NotIntents::Foreign));
        assert_eq!(Intents::decode(""), Err(NotIntents::Foreign));
        assert_eq!(Intents::decode("millrace/2 whatever comes"), Err(NotIntents::Newer));
        assert_eq!(Intents::decode("millrace/x y"), Err(NotIntents::Garbled));
        assert_eq!(Intents::decode("millrace/1"), Err(NotIntents::Garbled));
        // A checksum that fits does not make sense of nonsense.
        for body in ["1 2 0+5 s", "1 2 5+0 s", "1 2 5+-1 s", "1 -2 - s", "1 2 5+5 -", "1 2 5+9223372036854775807 s", "1 2", "x 2 - s"] {
            let text = format!("millrace/1 {} {body}", checksum(body));
            assert_eq!(Intents::decode(&text), Err(NotIntents::Garbled), "{body}");
        }
    }

    /// The form that stands in consumer groups: a change of it needs another version.
    #[test]
    fn the_form_stays() {
        let window = vec![Intent { rows: 500, next_offset: 1_510 }, Intent { rows: 20, next_offset: 1_530 }];
        let intents =
            Intents { stream: Some(Arc::from("projects/p/datasets/d/tables/t/streams/s")), base_rows: 7, base_next: 1_000, window };
        let text = "7 1000 500+510,20+20 projects/p/datasets/d/tables/t/streams/s";
        assert_eq!(&*intents.encode(), format!("millrace/1 {} {text}", checksum(text)));
        assert_eq!(checksum(text), "350808fe1f62dd49");
        assert_eq!((intents.window_rows(), intents.end_rows()), (520, 527));
    }
}
