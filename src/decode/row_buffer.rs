//! Rows on their way into one append: the wire form of `ProtoRows`, and where each row came from.

use std::ops::Range;

use bytes::Bytes;

use crate::record::{Record, RecordError};
use crate::table::SharedLayout;

use super::Plan;
use super::hot::STRETCH_ROOM_BYTES;
use super::plan::Padded;
use super::writer::varint_len;

/// `ProtoRows.serialized_rows`: field 1, length-delimited.
const ROW_TAG: u8 = 0x0A;
/// A tag and the longest length of a row below 2^28 bytes.
const ROW_OVERHEAD: usize = 5;

/// Room beyond a record's own length that a row may take at once.
const ROOM_BYTES: usize = STRETCH_ROOM_BYTES + 64;
/// How far room is initialised ahead.
const INITIALISED_STEP_BYTES: usize = 8 * 1024;

/// Which record a row came from: its partition's slot in the shard, and its offset. 12 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowOrigin {
    /// The partition's slot in the shard.
    pub slot: u32,
    /// The record's offset.
    pub offset: i64,
}

/// Origins, packed: 12 bytes each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowOrigins {
    slots: Vec<u32>,
    offsets: Vec<i64>,
}

impl RowOrigins {
    /// How many.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
    /// The origin of the row with this index.
    pub fn get(&self, row: usize) -> Option<RowOrigin> {
        Some(RowOrigin { slot: *self.slots.get(row)?, offset: *self.offsets.get(row)? })
    }
    fn reserve(&mut self, rows: usize) {
        self.slots.reserve(rows);
        self.offsets.reserve(rows);
    }
    /// Adds the origin of the next row.
    pub fn push(&mut self, origin: RowOrigin) {
        self.slots.push(origin.slot);
        self.offsets.push(origin.offset);
    }
    /// All of them, in the rows' order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RowOrigin> + '_ {
        self.slots.iter().zip(&self.offsets).map(|(&slot, &offset)| RowOrigin { slot, offset })
    }
}

impl FromIterator<RowOrigin> for RowOrigins {
    fn from_iter<T: IntoIterator<Item = RowOrigin>>(iter: T) -> Self {
        let mut origins = Self::default();
        iter.into_iter().for_each(|o| origins.push(o));
        origins
    }
}

/// How much a buffer came to: the room that its successor makes with its first row, so that it need not grow step by step, copied each
/// time.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowRoom {
    bytes: usize,
    rows: usize,
}

/// Rows of one table, one layout, waiting to be sent.
#[derive(Debug)]
pub struct RowBuffer {
    layout: SharedLayout,
    /// `bytes[..used]` is written, the rest initialised room.
    bytes: Vec<u8>,
    used: usize,
    /// Bytes that the last row's length took: the guess for the next one.
    length_guess: usize,
    /// Room to make with the first row.
    room: RowRoom,
    origins: RowOrigins,
    /// Where a record's data is copied to while it is decoded.
    padded: Padded,
}

/// A buffer that takes no more rows.
#[derive(Debug, Clone)]
pub struct ClosedRows {
    /// Describes the rows.
    pub layout: SharedLayout,
    /// The wire form of `ProtoRows`.
    pub rows: Bytes,
    /// Where each row came from, in order.
    pub origins: RowOrigins,
}

impl RowBuffer {
    /// An empty buffer. It takes memory with its first row.
    pub fn new(layout: SharedLayout) -> Self {
        Self::with_room(layout, RowRoom::default())
    }

    /// An empty buffer that makes this room with its first row.
    pub fn with_room(layout: SharedLayout, room: RowRoom) -> Self {
        let (origins, padded) = (RowOrigins::default(), Padded::default());
        Self { layout, bytes: Vec::new(), used: 0, length_guess: 1, room, origins, padded }
    }

    /// What it has come to so far, and a little more.
    pub fn room(&self) -> RowRoom {
        RowRoom { bytes: self.used + self.used / 16, rows: self.len_rows() }
    }

    /// Decodes a record into the next row and returns the bytes that it takes, tag and length included.
    ///
    /// The plan's layout version must not be above the buffer's: close the buffer and begin another one first.
    ///
    /// # Errors
    /// The record's; the buffer is as it was.
    #[inline]
    pub fn push(&mut self, plan: &Plan, payload: &[u8], record: &Record<'_>, now_us: i64, origin: RowOrigin) -> Result<usize, RecordError> {
        debug_assert!(plan.layout_version() <= self.layout.version, "a plan newer than the buffer's layout");
        let before = self.used;
        // Most rows are about as long as their data; a longer one makes room for itself.
        let wanted = before + ROW_OVERHEAD + payload.len() + ROOM_BYTES;
        if self.bytes.len() < wanted {
            self.grow(wanted);
        }
        let start = before + 1 + self.length_guess;
        let end = plan.decode_at(payload, record, now_us, &mut self.padded, &mut self.bytes, start)?;
        let row = end - start;
        let length = varint_len(row as u64);
        if length != self.length_guess {
            if self.bytes.len() < end + ROW_OVERHEAD {
                self.bytes.resize(end + ROW_OVERHEAD, 0);
            }
            self.bytes.copy_within(start..end, before + 1 + length);
            self.length_guess = length;
        }
        if let Some([tag, short]) = self.bytes.get_mut(before..).and_then(<[u8]>::first_chunk_mut) {
            (*tag, *short) = (ROW_TAG, row as u8);
        }
        if length > 1 {
            self.long_length(before + 1, row, length);
        }
        self.used = before + 1 + length + row;
        self.origins.push(origin);
        Ok(self.used - before)
    }

    /// Writes a length of more than one byte.
    #[inline(never)]
    fn long_length(&mut self, at: usize, mut row: usize, length: usize) {
        for (i, byte) in self.bytes[at..at + length].iter_mut().enumerate() {
            *byte = (row as u8 & 0x7f) | if i + 1 < length { 0x80 } else { 0 };
            row >>= 7;
        }
    }

    /// Initialises room a step ahead: bytes just zeroed are in the nearest cache when a row is written over them.
    #[inline(never)]
    fn grow(&mut self, wanted: usize) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.room.bytes.max(wanted));
            self.origins.reserve(self.room.rows);
        }
        let len = (wanted + INITIALISED_STEP_BYTES).min(self.bytes.capacity()).max(wanted);
        self.bytes.resize(len, 0);
    }

    /// Rows so far.
    pub fn len_rows(&self) -> usize {
        self.origins.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Bytes of the rows so far, tags and lengths included.
    pub fn len_bytes(&self) -> usize {
        self.used
    }

    /// Bytes of memory that the buffer holds, unused room included.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.origins.slots.capacity() * 4 + self.origins.offsets.capacity() * 8 + self.padded.memory_bytes()
    }

    /// Describes the rows.
    pub fn layout(&self) -> &SharedLayout {
        &self.layout
    }

    /// Gives back most of the room that its rows did not need.
    pub fn trim(&mut self) {
        if self.bytes.capacity() / 2 > self.used {
            self.bytes.truncate(self.used);
            self.bytes.shrink_to_fit();
            self.origins.slots.shrink_to_fit();
            self.origins.offsets.shrink_to_fit();
        }
        self.padded = Padded::default();
    }

    /// The rows, closed.
    pub fn close(mut self) -> ClosedRows {
        self.bytes.truncate(self.used);
        ClosedRows { layout: self.layout, rows: Bytes::from(self.bytes), origins: self.origins }
    }

    /// The rows so far, closed; this buffer goes on empty with `layout`, and
    /// will take as much memory at once as it held now.
    pub fn take(&mut self, layout: SharedLayout) -> ClosedRows {
        let padded = std::mem::take(&mut self.padded);
        let next = Self { length_guess: self.length_guess, padded, ..Self::with_room(layout, self.room()) };
        std::mem::replace(self, next).close()
    }
}

/// The byte range of each row's own bytes (without tag and length) in the wire form of `ProtoRows`, in order. Stops at malformed bytes.
pub fn split_rows(rows: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        if *rows.get(at)? != ROW_TAG {
            return None;
        }
        let (mut len, mut shift, mut start) = (0usize, 0, at + 1);
        loop {
            let byte = *rows.get(start)?;
            start += 1;
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
            if shift > 28 {
                return None;
            }
        }
        let end = start.checked_add(len).filter(|&e| e <= rows.len())?;
        at = end;
        Some(start..end)
    })
}

/// The wire form of `ProtoRows` with only the rows whose index `keep` accepts.
pub fn filter_rows(rows: &Bytes, mut keep: impl FnMut(usize) -> bool) -> Bytes {
    let mut out = Vec::with_capacity(rows.len());
    let mut from = 0;
    for (i, row) in split_rows(rows).enumerate() {
        if keep(i) {
            out.extend_from_slice(&rows[from..row.end]);
        }
        from = row.end;
    }
    out.into()
}
