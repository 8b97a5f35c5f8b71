//! Records that cannot become rows: one of each kind that producers in the wild make.

use super::record_maker::Framing;
use super::stock_update::{StockUpdate, put_bytes, put_long, put_optional};

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BadKind {
    /// Fewer bytes than the registry's framing has.
    TooShort,
    /// The first byte is none of the registry's framing.
    WrongMagicByte,
    /// A schema id that the registry does not know.
    UnknownSchemaId,
    /// No header that names the schema.
    MissingSchemaHeader,
    /// The header points outside the folder.
    HeaderOutsideFolder,
    /// The last byte is missing.
    Truncated,
    /// A byte follows the record.
    Overlong,
    /// A string with bytes that are no UTF-8.
    InvalidUtf8,
    /// The union has no such branch.
    UnionIndexOutOfRange,
    /// An `int` beyond 32 bits.
    IntOutOfRange,
    /// A number of more than ten bytes.
    MalformedVarint,
    /// A partitioning date that streaming does not take (more than ten years ago).
    OldPartition,
    /// No JSON.
    InvalidJson,
    /// A JSON text where the column is a number.
    WrongJsonType,
}

/// 2000-01-01: outside of what streaming takes for a time-partitioned table (10 years back).
const LONG_AGO_MS: i64 = 946_684_800_000;

impl BadKind {
    /// The kinds that make sense with this framing.
    pub fn of_framing(framing: &Framing) -> &'static [Self] {
        match framing {
            Framing::Registry { .. } => &[
                Self::TooShort,
                Self::WrongMagicByte,
                Self::UnknownSchemaId,
                Self::Truncated,
                Self::Overlong,
                Self::InvalidUtf8,
                Self::UnionIndexOutOfRange,
                Self::IntOutOfRange,
                Self::MalformedVarint,
                Self::OldPartition,
            ],
            Framing::Header { .. } => &[
                Self::MissingSchemaHeader,
                Self::HeaderOutsideFolder,
                Self::Truncated,
                Self::Overlong,
                Self::InvalidUtf8,
                Self::UnionIndexOutOfRange,
                Self::IntOutOfRange,
                Self::MalformedVarint,
                Self::OldPartition,
            ],
            Framing::Json => &[Self::InvalidJson, Self::WrongJsonType],
        }
    }

    /// Appends the value without framing: `update` damaged in this way.
    pub(super) fn encode(self, update: &StockUpdate, framing: &Framing, out: &mut Vec<u8>) {
        match self {
            Self::InvalidJson => out.extend_from_slice(b"{\"timestamp\": 17"),
            Self::WrongJsonType => {
                let mut json = update.to_json();
                json["variant_id"] = "many".into();
                out.extend_from_slice(json.to_string().as_bytes());
            }
            Self::OldPartition => StockUpdate { timestamp: LONG_AGO_MS, ..update.clone() }.encode_avro(out),
            Self::Truncated => {
                update.encode_avro(out);
                out.pop();
            }
            Self::Overlong => {
                update.encode_avro(out);
                out.push(0);
            }
            Self::MalformedVarint => {
                out.extend_from_slice(&[0xFF; 11]);
                update.encode_avro(out);
            }
            Self::InvalidUtf8 | Self::UnionIndexOutOfRange | Self::IntOutOfRange => self.damage_a_field(update, out),
            Self::TooShort | Self::WrongMagicByte | Self::UnknownSchemaId | Self::MissingSchemaHeader | Self::HeaderOutsideFolder => {
                match framing {
                    Framing::Json => out.extend_from_slice(update.to_json().to_string().as_bytes()),
                    Framing::Registry { .. } | Framing::Header { .. } => update.encode_avro(out),
                }
            }
        }
    }

    fn damage_a_field(self, update: &StockUpdate, out: &mut Vec<u8>) {
        put_long(out, update.timestamp);
        if self == Self::UnionIndexOutOfRange {
            put_long(out, 2);
        } else {
            put_optional(out, update.process_reference.as_deref());
        }
        put_long(out, if self == Self::IntOutOfRange { 1 << 40 } else { update.variant_id.into() });
        put_long(out, update.warehouse_id.into());
        put_bytes(out, if self == Self::InvalidUtf8 { &[0x4D, 0xFF, 0xFE] } else { update.warehouse_name.as_bytes() });
        put_long(out, update.huubclient_id.into());
        put_bytes(out, update.ean.as_bytes());
        put_bytes(out, update.reference.as_bytes());
        put_bytes(out, update.sales_channel_type.as_bytes());
        put_long(out, update.delta.into());
        put_long(out, update.stock_after_adjust.into());
    }
}
