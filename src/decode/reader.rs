//! Avro's binary encoding: a cursor that never reads past the data.

use crate::record::RecordErrorClass as Class;

use super::fault::Fault;

/// A cursor over one record's data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'d> {
    /// The data, and possibly padding behind it, so that whole words can be looked at up to the data's end.
    pub data: &'d [u8],
    pub pos: usize,
    /// Where the data ends.
    pub end: usize,
}

impl<'d> Reader<'d> {
    pub const fn new(data: &'d [u8]) -> Self {
        Self { data, pos: 0, end: data.len() }
    }

    /// A cursor over the first `end` bytes of `data`; what follows is padding.
    pub fn padded(data: &'d [u8], end: usize) -> Self {
        Self { data, pos: 0, end: end.min(data.len()) }
    }

    /// Bytes not yet read.
    #[inline(always)]
    pub const fn remaining(&self) -> usize {
        self.end - self.pos
    }

    /// A failure at the present position.
    #[cold]
    pub fn fault(&self, class: Class, what: &'static str) -> Fault {
        Fault::new(class, self.pos, what)
    }

    /// A varint, not yet un-zigzagged. Eight bytes are looked at at once where they are there: how long random numbers are cannot be
    /// predicted.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, Fault> {
        if let Some(chunk) = self.data.get(self.pos..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*chunk);
            let stops = !word & 0x8080_8080_8080_8080;
            let len = (stops.trailing_zeros() as usize >> 3) + 1;
            if stops != 0 && self.pos + len <= self.end {
                let x = word & (stops ^ (stops - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
                self.pos += len;
                return Ok(gather(x));
            }
        }
        let (value, pos) = slow_varint(self.data.get(..self.end).unwrap_or_default(), self.pos)?;
        self.pos = pos;
        Ok(value)
    }

    /// A varint that is usually one byte long: lengths, union branches.
    #[inline(always)]
    fn short_varint(&mut self) -> Result<u64, Fault> {
        match self.data.get(self.pos) {
            Some(&byte) if byte < 0x80 && self.pos < self.end => {
                self.pos += 1;
                Ok(u64::from(byte))
            }
            _ => {
                let (value, pos) = slow_varint(self.data.get(..self.end).unwrap_or_default(), self.pos)?;
                self.pos = pos;
                Ok(value)
            }
        }
    }

    /// `long`.
    #[inline(always)]
    pub fn long(&mut self) -> Result<i64, Fault> {
        Ok(unzigzag(self.varint()?))
    }

    /// `int`.
    #[inline(always)]
    pub fn int(&mut self) -> Result<i32, Fault> {
        let start = self.pos;
        i32::try_from(self.long()?).map_err(|_| Fault::new(Class::IntOutOfRange, start, "an int is beyond 32 bits"))
    }

    /// The branch of a union with `branches` of them, or the symbol of an enum.
    #[inline(always)]
    pub fn index(&mut self, limit: usize, class: Class) -> Result<usize, Fault> {
        let start = self.pos;
        let index = unzigzag(self.short_varint()?);
        match usize::try_from(index) {
            Ok(index) if index < limit => Ok(index),
            _ => Err(Fault::new(class, start, "the index is beyond what the schema has")),
        }
    }

    /// The length of `bytes` or `string`: that many bytes are there.
    #[inline(always)]
    pub fn length(&mut self) -> Result<usize, Fault> {
        let start = self.pos;
        let length = unzigzag(self.short_varint()?);
        match usize::try_from(length) {
            Ok(length) if length <= self.remaining() => Ok(length),
            Ok(_) => Err(Fault::new(Class::TruncatedData, start, "a length is beyond the end of the data")),
            Err(_) => Err(Fault::new(Class::InvalidBlock, start, "a length is negative")),
        }
    }

    /// The next `n` bytes.
    #[inline(always)]
    pub fn take(&mut self, n: usize) -> Result<&'d [u8], Fault> {
        if n > self.remaining() {
            return Err(self.truncated());
        }
        let bytes = self.data.get(self.pos..self.pos + n).unwrap_or_default();
        self.pos += n;
        Ok(bytes)
    }

    #[cold]
    fn truncated(&self) -> Fault {
        Fault::new(Class::TruncatedData, self.end, "the data ends before the record does")
    }

    /// The next `N` bytes.
    #[inline(always)]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        match self.data.get(self.pos..).and_then(<[u8]>::first_chunk::<N>) {
            Some(bytes) if N <= self.remaining() => {
                self.pos += N;
                Ok(*bytes)
            }
            _ => Err(self.truncated()),
        }
    }

    /// `boolean`.
    #[inline(always)]
    pub fn boolean(&mut self) -> Result<bool, Fault> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Fault::new(Class::InvalidBoolean, self.pos - 1, "a boolean is neither 0 nor 1")),
        }
    }

    /// `bytes`.
    #[inline(always)]
    pub fn bytes(&mut self) -> Result<&'d [u8], Fault> {
        let length = self.length()?;
        self.take(length)
    }

    /// `string`.
    #[inline]
    pub fn string(&mut self) -> Result<&'d str, Fault> {
        let bytes = self.bytes()?;
        check_utf8(bytes).map_err(|_| Fault::new(Class::InvalidUtf8, self.pos - bytes.len(), "a string is not UTF-8"))
    }

    /// The head of an array's or map's block: its count (0 ends the sequence) and where it must end, if it says so.
    ///
    /// `least` is the least size of an element: a count that cannot fit what is left is refused before anything is done for it.
    pub fn block(&mut self, least: usize) -> Result<(usize, Option<usize>), Fault> {
        let start = self.pos;
        let bad = |what| Fault::new(Class::InvalidBlock, start, what);
        let count = self.long()?;
        let mut end = None;
        if count < 0 {
            let size = usize::try_from(self.long()?).map_err(|_| bad("a block's size is negative"))?;
            if size > self.remaining() {
                return Err(bad("a block's size is beyond the end of the data"));
            }
            end = Some(self.pos + size);
        }
        let count = usize::try_from(count.unsigned_abs()).map_err(|_| bad("a block's count is too large"))?;
        let most = self.remaining().checked_div(least).unwrap_or(MAX_EMPTY_ELEMENTS);
        if count > most {
            return Err(bad("a block's count is beyond what the data can hold"));
        }
        Ok((count, end))
    }

    /// After a block's elements: the end must be where the block's head said.
    pub fn block_end(&self, end: Option<usize>) -> Result<(), Fault> {
        match end {
            Some(end) if end != self.pos => Err(self.fault(Class::InvalidBlock, "a block's size is not that of its elements")),
            _ => Ok(()),
        }
    }
}

/// The most elements of a block whose elements take no bytes: nothing else bounds them.
const MAX_EMPTY_ELEMENTS: usize = 1_000_000;

#[inline(always)]
const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Eight groups of seven bits, a byte each, to one number.
#[inline(always)]
pub(super) const fn gather(groups: u64) -> u64 {
    let x = (groups & 0x007f_007f_007f_007f) | ((groups & 0x7f00_7f00_7f00_7f00) >> 1);
    let x = (x & 0x0000_3fff_0000_3fff) | ((x & 0x3fff_0000_3fff_0000) >> 2);
    (x & 0x0000_0000_0fff_ffff) | ((x & 0x0fff_ffff_0000_0000) >> 4)
}

/// UTF-8, checked by SIMD where it pays.
#[inline]
pub(super) fn check_utf8(bytes: &[u8]) -> Result<&str, ()> {
    if bytes.len() < 64 { std::str::from_utf8(bytes).map_err(|_| ()) } else { simdutf8::basic::from_utf8(bytes).map_err(|_| ()) }
}

#[inline(never)]
fn slow_varint(data: &[u8], start: usize) -> Result<(u64, usize), Fault> {
    let (mut value, mut shift) = (0u64, 0);
    for (i, &byte) in data.get(start..).unwrap_or_default().iter().enumerate() {
        if shift == 63 && byte > 1 {
            return Err(Fault::new(Class::MalformedVarint, start, "a number takes more than 64 bits"));
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value, start + i + 1));
        }
        shift += 7;
    }
    Err(Fault::new(Class::TruncatedData, data.len(), "the data ends within a number"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn zigzag(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_varint(((value << 1) ^ (value >> 63)) as u64, &mut out);
        out
    }

    #[test]
    fn longs_of_every_length_with_and_without_data_behind() {
        for shift in 0..63 {
            for value in [1i64 << shift, -(1i64 << shift), (1i64 << shift) - 1, i64::MIN, i64::MAX] {
                let bytes = zigzag(value);
                let mut padded = bytes.clone();
                padded.extend([0xff; 9]);
                for data in [&bytes, &padded] {
                    let mut reader = Reader::new(data);
                    assert_eq!((reader.long().unwrap(), reader.pos), (value, bytes.len()));
                }
                let cut = Reader::padded(&padded, bytes.len() - 1).long().unwrap_err();
                assert_eq!((cut.class, cut.position), (Class::TruncatedData, bytes.len() - 1), "padding is no data");
            }
        }
    }

    #[test]
    fn bad_numbers_have_their_class_and_position() {
        let class = |data: &[u8]| Reader::new(data).long().unwrap_err().class;
        assert_eq!(class(&[]), Class::TruncatedData);
        assert_eq!(class(&[0x80; 3]), Class::TruncatedData);
        assert_eq!(class(&[0x80; 11]), Class::MalformedVarint);
        assert_eq!(class(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Class::MalformedVarint);
        let wide = zigzag(i64::from(i32::MAX) + 1);
        assert_eq!(Reader::new(&wide).int().unwrap_err().class, Class::IntOutOfRange);
        assert_eq!(Reader::new(&zigzag(i64::from(i32::MIN))).int(), Ok(i32::MIN));
        assert_eq!(Reader::new(&[2]).boolean().unwrap_err().class, Class::InvalidBoolean);
        assert_eq!(Reader::new(&[1]).length().unwrap_err().class, Class::InvalidBlock);
        assert_eq!(Reader::new(&[4, 1]).bytes().unwrap_err().class, Class::TruncatedData);
        assert_eq!(Reader::new(&[2, 0xff]).string().unwrap_err(), Fault::new(Class::InvalidUtf8, 1, "a string is not UTF-8"));
        assert_eq!(Reader::new(&[4]).index(2, Class::EnumIndexOutOfRange).unwrap_err().class, Class::EnumIndexOutOfRange);
    }

    #[test]
    fn blocks_are_bounded_by_the_data() {
        let block = |data: &[u8], least| Reader::new(data).block(least);
        assert_eq!(block(&[4, 0, 0], 1), Ok((2, None)));
        assert_eq!(block(&[3, 4, 0, 0], 1), Ok((2, Some(4))));
        assert_eq!(block(&[6, 0, 0], 1).unwrap_err().class, Class::InvalidBlock);
        assert_eq!(block(&[3, 8, 0, 0], 1).unwrap_err().class, Class::InvalidBlock);
        assert_eq!(block(&[3, 1, 0, 0], 1).unwrap_err().class, Class::InvalidBlock);
        for huge in [i64::MAX, i64::MIN] {
            let mut data = zigzag(huge);
            data.push(0);
            assert_eq!(block(&data, 0).unwrap_err().class, Class::InvalidBlock);
        }
    }
}
