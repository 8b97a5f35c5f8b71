//! Checks a row against its plan without building anything.

use super::plan::{FieldPlan, MessagePlan, Proto};
use super::scalar;
use super::wire::{Raw, Reader};

/// Whether a row may be stored; else BigQuery's words. `today`: days since the epoch.
pub(crate) fn row(plan: &MessagePlan, bytes: &[u8], today: i64) -> Result<(), String> {
    let mut reader = Reader::new(bytes);
    let mut seen = Seen::new(plan.required);
    while !reader.is_empty() {
        let (number, raw) = reader.field().map_err(|_| "The row is not a valid serialized proto message.".to_owned())?;
        let Some(field) = plan.field(number) else {
            return Err(format!("The row has field number {number}, which is not in the writer schema."));
        };
        one(field, raw, today)?;
        if field.required {
            seen.mark(field.required_bit);
        }
    }
    if seen.missing() {
        let unset = plan.fields.iter().find(|f| f.required && !seen.has(f.required_bit));
        return Err(format!("Required field {} cannot be null.", unset.map_or("", |f| &f.path)));
    }
    Ok(())
}

fn one(field: &FieldPlan, raw: Raw<'_>, today: i64) -> Result<(), String> {
    match (&field.proto, raw) {
        (Proto::Message(plan), Raw::Bytes(bytes)) => row(plan, bytes, today),
        (Proto::Message(_), _) => Err(format!("Field {} has a wire type that does not match its descriptor.", field.path)),
        (proto, Raw::Bytes(bytes)) if field.repeated && is_packable(proto) => {
            each_packed(proto, bytes, |raw| scalar::value(field, raw, today).map(drop)).unwrap_or_else(|| Err(malformed(field)))
        }
        _ => scalar::value(field, raw, today).map(drop),
    }
}

pub(super) fn malformed(field: &FieldPlan) -> String {
    format!("Field {} has malformed packed values.", field.path)
}

/// Whether a repeated field of this type may come packed.
pub(super) fn is_packable(proto: &Proto) -> bool {
    !matches!(proto, Proto::Text | Proto::Bytes | Proto::Message(_) | Proto::Wrapper(_) | Proto::SecondsNanos)
}

/// Calls `f` for each value of a packed list; `None` when the list is malformed.
pub(super) fn each_packed(
    proto: &Proto,
    bytes: &[u8],
    mut f: impl FnMut(Raw<'static>) -> Result<(), String>,
) -> Option<Result<(), String>> {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let raw = match proto {
            Proto::Double => Raw::Fixed64(reader.fixed64().ok()?),
            Proto::Float => Raw::Fixed32(reader.fixed32().ok()?),
            _ => Raw::Varint(reader.varint().ok()?),
        };
        if let Err(problem) = f(raw) {
            return Some(Err(problem));
        }
    }
    Some(Ok(()))
}

/// Which required fields a message has set.
enum Seen {
    Few { bits: u64, wanted: u64 },
    Many(Vec<bool>),
}

impl Seen {
    fn new(required: usize) -> Self {
        match required {
            0..=63 => Self::Few { bits: 0, wanted: (1 << required) - 1 },
            more => Self::Many(vec![false; more]),
        }
    }

    fn mark(&mut self, bit: usize) {
        match self {
            Self::Few { bits, .. } => *bits |= 1 << bit,
            Self::Many(seen) => seen[bit] = true,
        }
    }

    fn has(&self, bit: usize) -> bool {
        match self {
            Self::Few { bits, .. } => bits & (1 << bit) != 0,
            Self::Many(seen) => seen[bit],
        }
    }

    fn missing(&self) -> bool {
        match self {
            Self::Few { bits, wanted } => bits != wanted,
            Self::Many(seen) => seen.iter().any(|s| !s),
        }
    }
}
