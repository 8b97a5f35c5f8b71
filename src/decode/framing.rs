//! What stands before or beside a value and names its schema.

use crate::config::{ValueConfig, ValueFormat};
use crate::record::{Record, RecordError, RecordErrorClass, Stage};

use super::SchemaKeyRef;

/// Where a record says which schema it was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// Confluent's wire format: the byte 0, the id in four bytes big-endian, the data.
    Confluent,
    /// The registry's id in this header; the value is the data alone.
    SchemaIdHeader(String),
    /// A schema's name in this header; the value is the data alone.
    SchemaNameHeader(String),
    /// Nowhere: the value is JSON, typed by the table's columns.
    None,
}

impl Framing {
    /// What `[value]` asks for.
    pub fn of(value: &ValueConfig) -> Self {
        match (value.format, &value.schema_header, &value.schema_id_header) {
            (ValueFormat::Json, _, _) => Self::None,
            (ValueFormat::Avro, Some(header), _) => Self::SchemaNameHeader(header.clone()),
            (ValueFormat::Avro, None, Some(header)) => Self::SchemaIdHeader(header.clone()),
            (ValueFormat::Avro, None, None) => Self::Confluent,
        }
    }

    /// Whether records' headers are read.
    pub fn wants_headers(&self) -> bool {
        matches!(self, Self::SchemaIdHeader(_) | Self::SchemaNameHeader(_))
    }

    /// The schema's key and the data behind the framing. Nothing is allocated; a tombstone (no value) is the caller's matter.
    ///
    /// # Errors
    /// Too short, wrong magic byte, header missing or of no known form; and [`RecordErrorClass::UnexpectedTombstone`] without a value.
    pub fn split<'a>(&self, record: &Record<'a>) -> Result<(SchemaKeyRef<'a>, &'a [u8]), RecordError> {
        let Some(value) = record.value else {
            return Err(error(RecordErrorClass::UnexpectedTombstone, "the record has no value"));
        };
        match self {
            Self::None => Ok((SchemaKeyRef::Columns, value)),
            Self::Confluent => match value {
                [0, a, b, c, d, data @ ..] => Ok((SchemaKeyRef::Id(u32::from_be_bytes([*a, *b, *c, *d])), data)),
                [0, ..] | [] => Err(error(
                    RecordErrorClass::TooShort,
                    &format!("{} bytes: Confluent's framing takes 5 (magic byte 0, schema id) before the data", value.len()),
                )),
                [magic, ..] => {
                    Err(error(RecordErrorClass::WrongMagicByte, &format!("the first byte is {magic:#04x}, not Confluent's magic byte 0")))
                }
            },
            Self::SchemaIdHeader(name) => Ok((schema_id(name, header(record, name)?)?, value)),
            Self::SchemaNameHeader(name) => {
                let bytes = header(record, name)?;
                match std::str::from_utf8(bytes) {
                    Ok(text) if !text.is_empty() => Ok((SchemaKeyRef::Name(text), value)),
                    _ => Err(error(
                        RecordErrorClass::SchemaHeaderInvalid,
                        &format!("header `{name}` names no schema: it is empty or not UTF-8"),
                    )),
                }
            }
        }
    }
}

fn header<'a>(record: &Record<'a>, name: &str) -> Result<&'a [u8], RecordError> {
    match record.headers.last(name) {
        Some(Some(value)) => Ok(value),
        Some(None) => Err(error(RecordErrorClass::SchemaHeaderInvalid, &format!("header `{name}` is null"))),
        None => Err(error(RecordErrorClass::MissingSchemaHeader, &format!("the record has no header `{name}`"))),
    }
}

/// The forms in use: Confluent's header framing (magic 0 and id, magic 1 and guid), four bytes big-endian, decimal text.
fn schema_id(name: &str, bytes: &[u8]) -> Result<SchemaKeyRef<'static>, RecordError> {
    let text = || std::str::from_utf8(bytes).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse().ok());
    if let [1, guid @ ..] = bytes
        && let Ok(guid) = guid.try_into()
    {
        return Ok(SchemaKeyRef::Guid(guid));
    }
    if let Some(id) = text() {
        return Ok(SchemaKeyRef::Id(id));
    }
    match bytes {
        [0, a, b, c, d] | [a, b, c, d] => Ok(SchemaKeyRef::Id(u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => Err(error(
            RecordErrorClass::SchemaHeaderInvalid,
            &format!(
                "header `{name}` holds {} bytes that are no schema id: neither decimal text, nor 4 bytes big-endian, nor Confluent's 5 or 17 bytes",
                bytes.len()
            ),
        )),
    }
}

fn error(class: RecordErrorClass, message: &str) -> RecordError {
    RecordError::new(Stage::Framing, class, message)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::super::SchemaKey;
    use super::*;
    use crate::record::{Headers, NoHeaders};

    struct One(&'static str, Option<&'static [u8]>);
    impl Headers for One {
        fn last(&self, name: &str) -> Option<Option<&[u8]>> {
            (name == self.0).then_some(self.1)
        }
        fn each(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
            visit(self.0, self.1);
        }
    }

    fn record<'a>(value: Option<&'a [u8]>, headers: &'a dyn Headers) -> Record<'a> {
        Record { topic: "t", partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers }
    }

    #[test]
    fn confluent_framing() {
        let split =
            |value| Framing::Confluent.split(&record(value, &NoHeaders)).map(|(k, d)| (k.to_key(), d.to_vec())).map_err(|e| e.class);
        assert_eq!(split(Some(&[0, 0, 0, 1, 2, 9, 9])), Ok((SchemaKey::Id(258), vec![9, 9])));
        assert_eq!(split(Some(&[0, 0, 0, 1, 2])), Ok((SchemaKey::Id(258), vec![])));
        assert_eq!(split(Some(&[0, 0, 0, 1])), Err(RecordErrorClass::TooShort));
        assert_eq!(split(Some(&[])), Err(RecordErrorClass::TooShort));
        assert_eq!(split(Some(&[7, 0, 0, 0, 1])), Err(RecordErrorClass::WrongMagicByte));
        assert_eq!(split(None), Err(RecordErrorClass::UnexpectedTombstone));
    }

    #[test]
    fn schema_id_in_a_header() {
        let framing = Framing::SchemaIdHeader("id".to_owned());
        let split = |header: Option<&'static [u8]>| {
            let headers = One("id", header);
            framing.split(&record(Some(b"data"), &headers)).map(|(k, _)| k.to_key()).map_err(|e| e.class)
        };
        assert_eq!(split(Some(&[0, 0, 1, 0])), Ok(SchemaKey::Id(256)));
        assert_eq!(split(Some(&[0, 0, 0, 1, 0])), Ok(SchemaKey::Id(256)));
        assert_eq!(split(Some(b"4711")), Ok(SchemaKey::Id(4711)));
        assert_eq!(split(Some(b"\x010123456789abcdef")), Ok(SchemaKey::Guid(*b"0123456789abcdef")));
        assert_eq!(split(Some(b"abcdefg")), Err(RecordErrorClass::SchemaHeaderInvalid));
        assert_eq!(split(None), Err(RecordErrorClass::SchemaHeaderInvalid));
        let missing = framing.split(&record(Some(b"data"), &NoHeaders)).unwrap_err();
        assert_eq!(missing.class, RecordErrorClass::MissingSchemaHeader);
        assert!(missing.message.contains("`id`"));
    }

    #[test]
    fn schema_name_in_a_header() {
        let framing = Framing::SchemaNameHeader("schema".to_owned());
        let headers = One("schema", Some(b"com.huub.Stock"));
        let (key, data) = framing.split(&record(Some(b"data"), &headers)).map(|(k, d)| (k.to_key(), d.to_vec())).unwrap();
        assert_eq!((key, data.as_slice()), (SchemaKey::Name("com.huub.Stock".into()), b"data".as_slice()));
        let bad = One("schema", Some(&[0xff]));
        assert_eq!(framing.split(&record(Some(b""), &bad)).unwrap_err().class, RecordErrorClass::SchemaHeaderInvalid);
    }
}
