//! Protobuf bytes into a buffer whose bytes are initialised ahead: room is made once for several writes, each write is one bounds check.

use crate::record::RecordErrorClass;

use super::fault::Fault;

/// The greatest row, its overhead in the request left free: 9 MiB less 64 KiB (`bigquery-rules.md` section 4: the live limit is 10,485,760
/// with overhead).
pub const MAX_ROW_BYTES: usize = 9 * 1024 * 1024 - 64 * 1024;

/// A field's tag as it lies on the wire: at most four bytes (see `LayoutHistory`), written as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tag {
    pub word: u32,
    pub len: u8,
}

impl Tag {
    /// The tag of this field with a varint, an 8-byte or a length-delimited value (wire types 0, 1, 2).
    pub fn new(number: u32, wire_type: u32) -> Self {
        let (mut rest, mut word, mut len) = ((number << 3) | wire_type, 0u32, 0u8);
        while len < 4 {
            let byte = rest & 0x7f;
            rest >>= 7;
            let more = if rest != 0 { 0x80 } else { 0 };
            word |= (byte | more) << (8 * len);
            len += 1;
            if rest == 0 {
                break;
            }
        }
        Self { word, len }
    }
}

/// Appends at `at`; `buf[..at]` is what is written, the rest is initialised room.
pub(super) struct Writer<'b> {
    pub buf: &'b mut Vec<u8>,
    pub at: usize,
    /// Where the row began, to bound its size.
    pub row_start: usize,
}

impl<'b> Writer<'b> {
    #[inline]
    pub fn new(buf: &'b mut Vec<u8>, at: usize) -> Self {
        Self { buf, at, row_start: at }
    }

    /// Makes room for `n` bytes.
    ///
    /// # Errors
    /// The row grows beyond what one append takes.
    #[inline(always)]
    pub fn room(&mut self, n: usize) -> Result<(), Fault> {
        if self.buf.len() - self.at < n { self.grow(n) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, n: usize) -> Result<(), Fault> {
        if self.at - self.row_start + n > MAX_ROW_BYTES + 4096 {
            return Err(Fault::new(RecordErrorClass::RowTooLarge, 0, "the row is larger than 9 MiB, the most that one append takes"));
        }
        // As much again as the row has: what the caller keeps in the buffer before it does not count.
        self.buf.resize(self.at + n + (self.at - self.row_start).max(512), 0);
        Ok(())
    }

    /// Room for 4 bytes must be there.
    #[inline(always)]
    pub fn tag(&mut self, tag: Tag) {
        if let Some(room) = self.buf.get_mut(self.at..self.at + 4) {
            room.copy_from_slice(&tag.word.to_le_bytes());
        }
        self.at += usize::from(tag.len);
    }

    /// Room for 10 bytes must be there.
    #[inline(always)]
    pub fn varint(&mut self, value: u64) {
        if let Some(room) = self.buf.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut::<10>) {
            self.at += put_varint(room, value);
        }
    }

    #[inline(never)]
    fn long_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte((value as u8) | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    /// Room for a byte must be there.
    #[inline(always)]
    pub fn byte(&mut self, byte: u8) {
        if let Some(room) = self.buf.get_mut(self.at) {
            *room = byte;
        }
        self.at += 1;
    }

    /// Room must be there.
    #[inline(always)]
    pub fn bytes(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buf.get_mut(self.at..self.at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.at += bytes.len();
    }

    /// Makes room, then writes bytes of any length.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.room(bytes.len())?;
        self.bytes(bytes);
        Ok(())
    }

    /// A length-delimited field of known bytes.
    #[inline]
    pub fn delimited(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), Fault> {
        self.room(bytes.len() + 24)?;
        self.tag(tag);
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
        Ok(())
    }

    /// Begins a length-delimited field whose length is not known yet; one byte is left free for it.
    #[inline]
    pub fn open(&mut self, tag: Tag) -> Result<usize, Fault> {
        self.room(16)?;
        self.tag(tag);
        self.at += 1;
        Ok(self.at)
    }

    /// Ends what `open` began: puts the length before it, moving the content when its length takes more than the byte left free.
    #[inline]
    pub fn close(&mut self, start: usize) -> Result<(), Fault> {
        let len = self.at - start;
        if len < 0x80 {
            self.buf[start - 1] = len as u8;
            return Ok(());
        }
        self.room(16)?;
        let more = varint_len(len as u64) - 1;
        self.buf.copy_within(start..self.at, start + more);
        let end = self.at + more;
        self.at = start - 1;
        self.long_varint(len as u64);
        self.at = end;
        Ok(())
    }
}

/// The continuation bits of a varint's first eight bytes, by its length.
static CONTINUED: [u64; 11] = {
    let mut all = [0x8080_8080_8080_8080_u64; 11];
    let mut len = 0;
    while len < 9 {
        all[len] = if len == 0 { 0 } else { 0x8080_8080_8080_8080 & ((1 << (8 * (len - 1))) - 1) };
        len += 1;
    }
    all
};

/// Writes a varint and returns its length. Without a branch: neither the length nor the sign of random numbers can be predicted.
#[inline(always)]
pub(super) fn put_varint(room: &mut [u8; 10], value: u64) -> usize {
    let len = varint_len(value);
    let mut x = (value & 0x0000_0000_0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
    x = (x & 0x0000_3fff_0000_3fff) | ((x & 0x0fff_c000_0fff_c000) << 2);
    x = (x & 0x007f_007f_007f_007f) | ((x & 0x3f80_3f80_3f80_3f80) << 1);
    x |= CONTINUED[len];
    // The ninth byte continues when there is a tenth.
    let high = value >> 56;
    let tail = (high & 0x7f) | (high & 0x80) | (high >> 7 << 8);
    room[..8].copy_from_slice(&x.to_le_bytes());
    room[8..].copy_from_slice(&(tail as u16).to_le_bytes());
    len
}

/// Bytes that a varint takes: one for each seven bits.
#[inline(always)]
pub(super) const fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()) as usize * 9 + 64) / 64
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn varints_and_tags_are_prosts() {
        for shift in 0..64 {
            for value in [(1u64 << shift) - 1, 1 << shift, (1 << shift) + 1, u64::MAX - (1 << shift)] {
                let mut buf = vec![0xaa; 32];
                let mut writer = Writer::new(&mut buf, 3);
                writer.varint(value);
                let end = writer.at;
                let mut expected = Vec::new();
                prost::encoding::encode_varint(value, &mut expected);
                assert_eq!(&buf[3..end], expected, "{value}");
                assert_eq!(varint_len(value), expected.len(), "{value}");
            }
        }
        for number in [1, 15, 16, 2047, 2048, 262_143, 262_144, (1 << 25) - 1] {
            let mut expected = Vec::new();
            prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut expected);
            let tag = Tag::new(number, 2);
            assert_eq!(&tag.word.to_le_bytes()[..usize::from(tag.len)], expected);
        }
    }

    #[test]
    fn lengths_are_patched_minimally() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 100_000] {
            let mut buf = Vec::new();
            let mut writer = Writer::new(&mut buf, 0);
            let start = writer.open(Tag::new(1, 2)).unwrap();
            writer.put(&vec![7; len]).unwrap();
            writer.close(start).unwrap();
            let end = writer.at;
            let mut expected = vec![10];
            prost::encoding::encode_varint(len as u64, &mut expected);
            expected.extend(vec![7; len]);
            assert_eq!(&buf[..end], expected);
        }
    }

    #[test]
    fn a_row_beyond_the_limit_is_an_error_not_memory() {
        let mut buf = Vec::new();
        let mut writer = Writer::new(&mut buf, 0);
        let chunk = vec![1; 1 << 20];
        let failed = (0..20).find_map(|_| writer.put(&chunk).err()).unwrap();
        assert_eq!(failed.class, RecordErrorClass::RowTooLarge);
        assert!(buf.len() < 16 << 20);
    }
}
