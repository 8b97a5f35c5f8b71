//! Protobuf's wire format, borrowed from the row's bytes.

/// One field as it lies on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads fields one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7F) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return if i == 9 && *byte > 1 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    pub(crate) fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, Malformed> {
        let bytes: [u8; 8] = self.take(8)?.try_into().map_err(|_| Malformed)?;
        Ok(u64::from_le_bytes(bytes))
    }

    pub(crate) fn fixed32(&mut self) -> Result<u32, Malformed> {
        let bytes: [u8; 4] = self.take(4)?.try_into().map_err(|_| Malformed)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The next field's number and content; groups are refused.
    pub(crate) fn field(&mut self) -> Result<(u32, Raw<'a>), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed);
        }
        let raw = match tag & 7 {
            0 => Raw::Varint(self.varint()?),
            1 => Raw::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                Raw::Bytes(self.take(length)?)
            }
            5 => Raw::Fixed32(self.fixed32()?),
            _ => return Err(Malformed),
        };
        Ok((number, raw))
    }
}

/// The rows of a `ProtoRows` message in wire form: field 1, repeated bytes.
#[derive(Debug, Clone)]
pub(crate) struct RowsReader<'a>(Reader<'a>);

impl<'a> RowsReader<'a> {
    pub(crate) fn new(proto_rows: &'a [u8]) -> Self {
        Self(Reader::new(proto_rows))
    }
}

impl<'a> Iterator for RowsReader<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match self.0.field() {
                Ok((1, Raw::Bytes(row))) => return Some(Ok(row)),
                Ok((1, _)) | Err(Malformed) => {
                    self.0 = Reader::new(&[]);
                    return Some(Err(Malformed));
                }
                Ok(_) => {}
            }
        }
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rows_and_rubbish() {
        let rows: Vec<_> = RowsReader::new(&[0x0A, 2, 1, 2, 0x0A, 0]).collect();
        assert_eq!(rows, [Ok(&[1_u8, 2][..]), Ok(&[][..])]);
        assert_eq!(RowsReader::new(&[0x0A, 5, 1]).next(), Some(Err(Malformed)));
        assert_eq!(Reader::new(&[0xFF; 11]).varint(), Err(Malformed));
        assert_eq!(Reader::new(&[0x0B]).field(), Err(Malformed));
        assert_eq!(Reader::new(&[0x00, 0x00]).field(), Err(Malformed));
    }
}
