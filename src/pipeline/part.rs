//! Some rows of an append job, sent as one append: split, or with rows taken out.

use bytes::Bytes;

use crate::decode::filter_rows;

/// Some rows of a job, sent as one append.
pub struct Part {
    /// Their wire form.
    pub rows: Bytes,
    /// Which rows of the job, in order.
    pub indices: Indices,
    /// They may be in the table already: the answer to an earlier append was lost.
    pub maybe_durable: bool,
    /// How often it failed before.
    pub attempts: u32,
}

/// Which rows of a job. The usual case, all of them, allocates nothing.
pub enum Indices {
    /// All rows of the job; how many.
    All(u32),
    /// The rows of these indices in the job, ascending.
    Some(Vec<u32>),
}

impl Indices {
    /// How many.
    pub fn len(&self) -> u32 {
        match self {
            Self::All(count) => *count,
            Self::Some(indices) => u32::try_from(indices.len()).unwrap_or(u32::MAX),
        }
    }

    /// The row at this place of the part.
    pub fn get(&self, at: u32) -> Option<u32> {
        match self {
            Self::All(count) => (at < *count).then_some(at),
            Self::Some(indices) => indices.get(at as usize).copied(),
        }
    }
}

/// A part in two, in the order in which they are pushed: the last one goes first.
pub fn halves(part: &Part) -> Vec<Part> {
    let count = part.indices.len();
    let middle = count / 2;
    let first: Vec<u32> = (0..middle).collect();
    let second: Vec<u32> = (middle..count).collect();
    vec![pick(part, &second), pick(part, &first)]
}

/// Some rows of a part, by their places in it (ascending).
pub fn pick(part: &Part, places: &[u32]) -> Part {
    let rows = filter_rows(&part.rows, |place| u32::try_from(place).is_ok_and(|place| places.binary_search(&place).is_ok()));
    let indices = places.iter().filter_map(|place| part.indices.get(*place)).collect();
    Part { rows, indices: Indices::Some(indices), maybe_durable: part.maybe_durable, attempts: part.attempts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_hold_every_row_once_and_in_order() {
        // Three rows of one byte each in the wire form of `ProtoRows`.
        let rows = Bytes::from_static(&[0x0A, 1, 7, 0x0A, 1, 8, 0x0A, 1, 9]);
        let part = Part { rows, indices: Indices::Some(vec![4, 6, 9]), maybe_durable: true, attempts: 2 };
        let [second, first] = <[Part; 2]>::try_from(halves(&part)).unwrap_or_else(|_| unreachable!("two halves"));
        assert_eq!((first.rows.as_ref(), first.indices.get(0), first.indices.len()), (&[0x0A, 1, 7][..], Some(4), 1));
        assert_eq!(second.rows.as_ref(), [0x0A, 1, 8, 0x0A, 1, 9]);
        assert_eq!((second.indices.get(0), second.indices.get(1), second.indices.get(2)), (Some(6), Some(9), None));
        assert!(first.maybe_durable && second.attempts == 2);
    }
}
