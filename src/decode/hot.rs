//! The common operations, in one loop whose whole state is in registers. Each looks once at whether its data and its room are there, and
//! then works on whole words without branches that random data would make unpredictable. Whatever is not plain (the end of the data, a
//! long text, anything wrong) is left to the general way, which starts the operation anew and says what is wrong.

use super::civil::MICROS;
use super::ops::{Hot, Op};
use super::reader::{check_utf8, gather};
use super::writer::put_varint;

/// The longest text that is copied and checked in whole words.
const SHORT_TEXT_BYTES: usize = 32;
/// What an operation may look at: a union's branch, a length, a short text. Data must be padded by as much to be read here to its end.
pub(super) const WINDOW_BYTES: usize = 40;
/// What an operation may write to: a tag, a length, a short text.
const ROOM_BYTES: usize = 64;

/// The top bit of each byte: a varint goes on.
const MORE: u64 = 0x8080_8080_8080_8080;
/// The seven bits of each byte that belong to a varint's value.
const GROUPS: u64 = !MORE;

/// Where a stretch ended: the operation to go on with, and how far data and row are.
pub(super) struct Stop {
    pub next: usize,
    pub pos: usize,
    pub at: usize,
}

/// Runs common operations from `next` on, until one that is not, or not plain. `data[..end]` is the data, the rest padding; `out` is the
/// row's buffer, initialised. Positions are `pos` and `at`.
#[inline(never)]
pub(super) fn stretch(ops: &[Op], mut next: usize, data: &[u8], end: usize, mut pos: usize, out: &mut [u8], mut at: usize) -> Stop {
    while let Some(op) = ops.get(next) {
        if op.hot == Hot::No {
            break;
        }
        let Some(window) = data.get(pos..).and_then(<[u8]>::first_chunk::<WINDOW_BYTES>) else { break };
        let Some(room) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<ROOM_BYTES>) else { break };
        // Of a null only the branch is read and nothing kept: what is done for its value is masked, for nulls cannot be predicted either.
        let (mut start, mut kept) = (0, usize::MAX);
        if op.has_branch {
            let branch = window[0];
            if (branch != op.value_branch) & ((branch != op.null_branch) | op.required) {
                break;
            }
            start = 1;
            kept = usize::from(branch == op.value_branch).wrapping_neg();
        }
        room[..4].copy_from_slice(&op.tag.word.to_le_bytes());
        // At most four: said so that no later check is needed.
        let tag = usize::from(op.tag.len & 7);
        let done = match op.hot {
            Hot::Int => number::<{ 1 << 36 }>(window, start, room, tag),
            Hot::Long => number::<{ u64::MAX }>(window, start, room, tag),
            Hot::Text => text(window, start, kept, room, tag),
            Hot::Millis => millis(window, start, room, tag),
            Hot::No => break,
        };
        // What stands behind a null need not be plain.
        let Some((read, written)) = done.or((kept == 0).then_some((1, 0))) else { break };
        let read = start + ((read - start) & kept);
        if read > end - pos.min(end) {
            break;
        }
        (next, pos, at) = (next + 1, pos + read, at + (written & kept));
    }
    Stop { next, pos, at }
}

/// The varint at `start`: its groups of seven bits as they lie, and where it ends. `None` when it is longer than eight bytes.
#[inline(always)]
fn groups(window: &[u8; WINDOW_BYTES], start: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*window[start & 1..].first_chunk()?);
    let stops = !word & MORE;
    if stops == 0 {
        return None;
    }
    Some((word & (stops ^ (stops - 1)) & GROUPS, start + (stops.trailing_zeros() as usize >> 3) + 1))
}

/// A zigzag varint to a plain one, group by group: halving is a shift across the groups, a negative number's complement fills ten bytes.
#[inline(always)]
fn number<const BELOW: u64>(window: &[u8; WINDOW_BYTES], start: usize, room: &mut [u8; ROOM_BYTES], tag: usize) -> Option<(usize, usize)> {
    let (zigzag, read) = groups(window, start)?;
    // For an int: more than 32 bits, the fifth group's upper ones.
    if zigzag >= BELOW {
        return None;
    }
    let half = ((zigzag >> 1) & 0x3f3f_3f3f_3f3f_3f3f) | ((zigzag >> 2) & 0x4040_4040_4040_4040);
    let negative = (zigzag & 1).wrapping_neg();
    let len = (71 - (half | 1).leading_zeros() as usize) >> 3;
    let more = MORE & !(u64::MAX << (8 * (len - 1)));
    let word = (half ^ (GROUPS & negative)) | more | (MORE & negative);
    let room = room[tag..].first_chunk_mut::<10>()?;
    room[..8].copy_from_slice(&word.to_le_bytes());
    room[8..].copy_from_slice(&((0x01ff & negative) as u16).to_le_bytes());
    Some((read, tag + len + ((10 - len) & negative as usize)))
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
    let length = window[start & 1] & kept as u8;
    let len = usize::from(length >> 1);
    if length & 1 != 0 || len > SHORT_TEXT_BYTES {
        return None;
    }
    let source = window[(start & 1) + 1..].first_chunk::<SHORT_TEXT_BYTES>()?;
    let target = room[tag..].first_chunk_mut::<{ 1 + SHORT_TEXT_BYTES }>()?;
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
