//! The common operations, in one loop whose whole state is in registers: each makes sure of its room once and writes whole words.

use crate::record::RecordErrorClass as Class;

use super::civil::MICROS;
use super::exec::{is_null, utf8};
use super::fault::Fault;
use super::ops::{Code, Op, Union};
use super::reader::Reader;
use super::writer::{Tag, put_varint};

/// Room that one operation may write to: tag, length, and 32 bytes of text.
const ROOM_BYTES: usize = 64;
/// The longest text that is copied and checked in whole words.
const SHORT_TEXT_BYTES: usize = 32;

/// The last bytes of the data are read from a padded copy: a text of theirs could not be read in whole words.
pub(super) const TAIL_BYTES: usize = SHORT_TEXT_BYTES;

/// Where a stretch ended.
pub(super) struct Stop {
    /// The operation to go on with: not common, or without room; or the one that failed.
    pub next: usize,
    pub pos: usize,
    pub at: usize,
    pub fault: Option<Fault>,
}

/// Runs common operations from `next` on, until one that is not, until less than `least` bytes are left, or until the room ends. What an unfinished operation read is not counted.
#[inline(never)]
pub(super) fn stretch(ops: &[Op], mut next: usize, mut r: Reader<'_>, least: usize, out: &mut [u8], mut at: usize) -> Stop {
    let (mut pos, mut fault) = (r.pos, None);
    while let Some(op) = ops.get(next) {
        if r.remaining() < least {
            break;
        }
        let Some(room) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<ROOM_BYTES>) else { break };
        if op.union != Union::No {
            match is_null(op, &mut r) {
                Ok(false) => {}
                Ok(true) => {
                    (next, pos) = (next + 1, r.pos);
                    continue;
                }
                Err(failed) => {
                    fault = Some(failed);
                    break;
                }
            }
        }
        let written = match &op.code {
            Code::Long => r.long().map(|value| word(room, op.tag, value as u64)),
            Code::Int => r.int().map(|value| word(room, op.tag, i64::from(value) as u64)),
            Code::MillisTimestamp if !op.partition => millis(&mut r, room, op.tag),
            Code::Text => match text(&mut r, room, op.tag) {
                Ok(0) => break,
                other => other,
            },
            _ => break,
        };
        match written {
            Ok(bytes) => (next, pos, at) = (next + 1, r.pos, at + bytes),
            Err(failed) => {
                fault = Some(failed);
                break;
            }
        }
    }
    Stop { next, pos, at, fault }
}

/// A tag and a varint; how many bytes.
#[inline(always)]
fn word(room: &mut [u8; ROOM_BYTES], tag: Tag, value: u64) -> usize {
    let start = put_tag(room, tag);
    match room.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<10>) {
        Some(room) => start + put_varint(room, value),
        None => start,
    }
}

#[inline(always)]
fn put_tag(room: &mut [u8; ROOM_BYTES], tag: Tag) -> usize {
    room[..4].copy_from_slice(&tag.word.to_le_bytes());
    // At most four: said so that no later check is needed.
    usize::from(tag.len & 7)
}

#[inline(always)]
fn millis(r: &mut Reader<'_>, room: &mut [u8; ROOM_BYTES], tag: Tag) -> Result<usize, Fault> {
    let start = r.pos;
    let micros = r.long()?.saturating_mul(1_000);
    if !MICROS.contains(&micros) {
        return Err(Fault::new(Class::ValueOutOfRange, start, "a timestamp is beyond 0001-01-01 .. 9999-12-31"));
    }
    Ok(word(room, tag, micros as u64))
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

/// A short text: tag, length, bytes; 0 when it is not short, or too near to the end of the data to be read in whole words.
#[inline(always)]
fn text(r: &mut Reader<'_>, room: &mut [u8; ROOM_BYTES], tag: Tag) -> Result<usize, Fault> {
    let len = r.length()?;
    let Some(source) = r.data.get(r.pos..).and_then(<[u8]>::first_chunk::<SHORT_TEXT_BYTES>) else { return Ok(0) };
    let Some(mask) = TOP_BITS.get(len) else { return Ok(0) };
    let start = put_tag(room, tag);
    if let Some(target) = room.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<{ 1 + SHORT_TEXT_BYTES }>) {
        target[0] = len as u8;
        target[1..].copy_from_slice(source);
    }
    let mut high = 0;
    for (word, mask) in source.as_chunks::<8>().0.iter().zip(mask) {
        high |= u64::from_le_bytes(*word) & mask;
    }
    if high != 0 {
        utf8(&source[..len], r.pos)?;
    }
    r.pos += len;
    Ok(start + 1 + len)
}
