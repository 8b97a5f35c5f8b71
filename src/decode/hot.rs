//! The common operations, in one loop over a stretch of the data and of the row. Both are arrays, so that one look at each position is all
//! that an operation checks of its bounds; then it works on whole words without branches that random data would make unpredictable.
//! Whatever is not plain (the end of the data, a long text, anything wrong) is left to the general way, which starts the operation anew and
//! says what is wrong.

use super::civil::MICROS;
use super::ops::{Hot, Op};
use super::reader::{check_utf8, gather};
use super::writer::put_varint;

/// The longest text that is copied and checked in whole words, and the bits that its length takes as it lies on the wire (zigzag).
const SHORT_TEXT_BYTES: usize = 31;
const SHORT_LENGTH: u8 = (SHORT_TEXT_BYTES as u8) << 1;
/// The words of a short text: a byte more than the longest one has.
const TEXT_BYTES: usize = 32;
/// What an operation may look at: a union's branch, a length, a short text.
const WINDOW_BYTES: usize = 40;
/// What an operation may write to: a tag, a length, a short text.
const ROOM_BYTES: usize = 64;
/// How far a stretch goes before it begins anew, in the data and in the row.
const FAR: usize = 512;
/// The data that a stretch may look at: padding must be behind data that ends earlier.
pub(super) const STRETCH_BYTES: usize = FAR + WINDOW_BYTES;
/// The part of the row that a stretch may write to.
pub(super) const STRETCH_ROOM_BYTES: usize = FAR + ROOM_BYTES;

/// The top bit of each byte: a varint goes on.
const MORE: u64 = 0x8080_8080_8080_8080;
/// The seven bits of each byte that belong to a varint's value.
const GROUPS: u64 = !MORE;

/// Where a stretch ended: how many operations are done, and how far it went in the data and in the row.
pub(super) struct Stop {
    pub done: usize,
    pub read: usize,
    pub written: usize,
}

impl Stop {
    /// Whether it ended only because it went far: the next operation may be a common one as well.
    pub const fn is_far(&self) -> bool {
        self.read > FAR || self.written > FAR
    }
}

/// Runs common operations from the first one on, until one that is not, or not plain. `data[..end]` is the data, the rest anything.
#[inline(never)]
pub(super) fn stretch(ops: &[Op], data: &[u8; STRETCH_BYTES], end: usize, out: &mut [u8; STRETCH_ROOM_BYTES]) -> Stop {
    let (mut done, mut pos, mut at) = (0, 0, 0);
    for op in ops {
        if pos > FAR || at > FAR {
            break;
        }
        let Some(window) = data[pos..].first_chunk::<WINDOW_BYTES>() else { break };
        let Some(room) = out[at..].first_chunk_mut::<ROOM_BYTES>() else { break };
        room[..4].copy_from_slice(&op.tag.word.to_le_bytes());
        // At most four: said so that no later check is needed.
        let tag = usize::from(op.tag.len & 7);
        let moved = match op.hot {
            Hot::Int => number::<{ 1 << 36 }>(window, 0, room, tag),
            Hot::Long => number::<{ u64::MAX }>(window, 0, room, tag),
            Hot::Text => text(window, 0, usize::MAX, room, tag),
            Hot::Millis => millis(window, 0, room, tag),
            Hot::NullableInt => nullable(op, window, |_| number::<{ 1 << 36 }>(window, 1, room, tag)),
            Hot::NullableLong => nullable(op, window, |_| number::<{ u64::MAX }>(window, 1, room, tag)),
            Hot::NullableText => nullable(op, window, |kept| text(window, 1, kept, room, tag)),
            Hot::NullableMillis => nullable(op, window, |_| millis(window, 1, room, tag)),
            Hot::No => break,
        };
        let Some((read, written)) = moved else { break };
        if pos + read > end {
            break;
        }
        (done, pos, at) = (done + 1, pos + read, at + written);
    }
    Stop { done, read: pos, written: at }
}

/// A value behind a union's branch. Of a null only the branch is read and nothing kept: what is done for its value is masked (`value` gets
/// the mask), for nulls cannot be predicted either.
#[inline(always)]
fn nullable(op: &Op, window: &[u8; WINDOW_BYTES], value: impl FnOnce(usize) -> Option<(usize, usize)>) -> Option<(usize, usize)> {
    let branch = window[0];
    // Zigzag: the branches are the bytes 0 and 2.
    if branch & !2 != 0 {
        return None;
    }
    let kept = usize::from((branch ^ op.null_branch) >> 1 & 1).wrapping_neg();
    // What stands behind a null need not be plain.
    let (read, written) = value(kept).or((kept == 0).then_some((1, 0)))?;
    Some((1 + ((read - 1) & kept), written & kept))
}

/// The varint at `start`: its groups of seven bits as they lie, and where it ends. `None` when it is longer than eight bytes.
#[inline(always)]
fn groups(window: &[u8; WINDOW_BYTES], start: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*window[start..].first_chunk()?);
    let stops = !word & MORE;
    if stops == 0 {
        return None;
    }
    Some((word & (stops ^ (stops - 1)) & GROUPS, start + 1 + (stops.trailing_zeros() as usize >> 3)))
}

/// What makes a plain varint of a number's groups: flipped, set, as long as, and behind its eighth byte.
#[derive(Clone, Copy)]
struct Form {
    flip: u64,
    set: u64,
    len: usize,
    tail: [u8; 2],
}

/// By the index of the highest byte that is not zero (0 to 7), plus eight for a negative number: its complement fills ten bytes.
static FORMS: [Form; 16] = {
    let mut all = [Form { flip: GROUPS, set: MORE, len: 10, tail: [0xff, 0x01] }; 16];
    let mut top = 0;
    while top < 8 {
        all[top] = Form { flip: 0, set: MORE & !(u64::MAX << (8 * top)), len: top + 1, tail: [0, 0] };
        top += 1;
    }
    all
};

/// A zigzag varint to a plain one, group by group: halving is a shift across the groups.
#[inline(always)]
fn number<const BELOW: u64>(window: &[u8; WINDOW_BYTES], start: usize, room: &mut [u8; ROOM_BYTES], tag: usize) -> Option<(usize, usize)> {
    let (zigzag, read) = groups(window, start)?;
    // For an int: more than 32 bits, the fifth group's upper ones.
    if zigzag >= BELOW {
        return None;
    }
    let half = zigzag >> 1;
    let half = half - ((half >> 1) & 0x4040_4040_4040_4040);
    let form = &FORMS[((half | 1).ilog2() as usize >> 3) & 7 | (zigzag as usize & 1) << 3];
    let room = room[tag..].first_chunk_mut::<10>()?;
    room[..8].copy_from_slice(&((half ^ form.flip) | form.set).to_le_bytes());
    room[8..].copy_from_slice(&form.tail);
    Some((read, tag + form.len))
}

/// Milliseconds to TIMESTAMP's microseconds.
#[inline(always)]
fn millis(window: &[u8; WINDOW_BYTES], start: usize, room: &mut [u8; ROOM_BYTES], tag: usize) -> Option<(usize, usize)> {
    let (zigzag, read) = groups(window, start)?;
    let zigzag = gather(zigzag);
    let micros = ((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).checked_mul(1_000)?;
    if !MICROS.contains(&micros) {
        return None;
    }
    Some((read, tag + put_varint(room[tag..].first_chunk_mut()?, micros as u64)))
}

/// For each length, the top bits of the bytes that belong to the text.
static TOP_BITS: [[u64; 4]; SHORT_TEXT_BYTES + 1] = {
    let mut all = [[0u64; 4]; SHORT_TEXT_BYTES + 1];
    let mut len = 0;
    while len <= SHORT_TEXT_BYTES {
        let mut byte = 0;
        while byte < len {
            all[len][byte / 8] |= 0x80 << (byte % 8 * 8);
            byte += 1;
        }
        len += 1;
    }
    all
};

/// A short text: its length and its bytes, what stands behind them copied with them.
#[inline(always)]
fn text(window: &[u8; WINDOW_BYTES], start: usize, kept: usize, room: &mut [u8; ROOM_BYTES], tag: usize) -> Option<(usize, usize)> {
    let length = window[start] & kept as u8;
    if length & !SHORT_LENGTH != 0 {
        return None;
    }
    let len = usize::from(length >> 1);
    let source = window[start + 1..].first_chunk::<TEXT_BYTES>()?;
    let target = room[tag..].first_chunk_mut::<{ 1 + TEXT_BYTES }>()?;
    target[0] = len as u8;
    target[1..].copy_from_slice(source);
    let mut high = 0;
    for (word, mask) in source.as_chunks::<8>().0.iter().zip(&TOP_BITS[len]) {
        high |= u64::from_le_bytes(*word) & mask;
    }
    if high != 0 && check_utf8(&source[..len]).is_err() {
        return None;
    }
    Some((start + 1 + len, tag + 1 + len))
}
