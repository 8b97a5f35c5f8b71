//! JSON objects to row bytes, streamed: nothing is built in between but the text of JSON and NUMERIC values.
//!
//! A key that comes twice is refused: which of the values is meant cannot be told.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::record::{RecordError, RecordErrorClass as Class, Stage};

use super::civil;
use super::fault::Fault;
use super::json_plan::{Field, Object, Value};
use super::ops::{Scalar, TimeTo};
use super::values::{as_micros, check_partition, put_decimal, put_double, put_time};
use super::writer::Writer;

struct State<'w, 'b> {
    w: &'w mut Writer<'b>,
    now_us: i64,
    fault: Option<Fault>,
    unknown: Option<String>,
}

impl State<'_, '_> {
    #[cold]
    fn fail<E: serde::de::Error>(&mut self, fault: Fault) -> E {
        self.fault.get_or_insert(fault);
        E::custom("")
    }

    fn check<T, E: serde::de::Error>(&mut self, outcome: Result<T, Fault>, path: u32) -> Result<T, E> {
        outcome.map_err(|fault| self.fail(fault.at_path(path)))
    }
}

/// Writes the row of one JSON object.
pub(super) fn run(object: &Object, payload: &[u8], now_us: i64, w: &mut Writer<'_>, paths: &[String]) -> Result<(), RecordError> {
    let mut state = State { w, now_us, fault: None, unknown: None };
    let mut deserializer = serde_json::Deserializer::from_slice(payload);
    let outcome = ObjectSeed { object, state: &mut state, path: u32::MAX }.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    let Err(error) = outcome else { return Ok(()) };
    // serde_json's own words may show values: only its place is told.
    let place = format!("line {} column {}", error.line(), error.column());
    let (class, message) = match (state.fault, state.unknown) {
        (Some(fault), Some(key)) => (fault.class, format!("{place}: key `{key}`: {}", fault.what)),
        (Some(fault), None) => {
            let field = paths.get(fault.path as usize).map_or_else(String::new, |p| format!("field `{p}`, "));
            (fault.class, format!("{field}{place}: {}", fault.what))
        }
        (None, _) if std::str::from_utf8(payload).is_err() => (Class::InvalidUtf8, format!("{place}: the value is not UTF-8")),
        (None, _) => (Class::InvalidJson, format!("{place}: the value is no JSON")),
    };
    Err(RecordError::new(Stage::Decode, class, message))
}

fn mismatch(what: &'static str) -> Fault {
    Fault::new(Class::TypeMismatch, 0, what)
}

/// Which columns of an object came.
struct Seen {
    inline: [u64; 4],
    more: Vec<u64>,
}

impl Seen {
    fn new(fields: usize) -> Self {
        Self { inline: [0; 4], more: vec![0; fields.saturating_sub(256).div_ceil(64)] }
    }
    fn word(&mut self, index: usize) -> Option<&mut u64> {
        if index < 256 { self.inline.get_mut(index / 64) } else { self.more.get_mut((index - 256) / 64) }
    }
    /// Whether it was there already.
    fn insert(&mut self, index: usize) -> bool {
        let bit = 1 << (index % 64);
        self.word(index).is_some_and(|w| {
            let before = *w & bit != 0;
            *w |= bit;
            before
        })
    }
    fn contains(&mut self, index: usize) -> bool {
        self.word(index).is_some_and(|w| *w & (1 << (index % 64)) != 0)
    }
}

struct ObjectSeed<'s, 'w, 'b> {
    object: &'s Object,
    state: &'s mut State<'w, 'b>,
    path: u32,
}

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What a visitor answers to values of the wrong kind.
macro_rules! refuse {
    ($what:literal: $($method:ident($ty:ty)),*) => {
        $(fn $method<E: serde::de::Error>(self, _: $ty) -> Result<(), E> {
            let fault = mismatch($what).at_path(self.path);
            Err(self.state.fail(fault))
        })*
    };
}

impl<'de> Visitor<'de> for ObjectSeed<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    refuse!("a JSON object is expected": visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        let fault = mismatch("a JSON object is expected").at_path(self.path);
        Err(self.state.fail(fault))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        let fault = mismatch("a JSON object is expected").at_path(self.path);
        Err(self.state.fail(fault))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Seen::new(self.object.fields.len());
        while let Some(key) = map.next_key::<Key<'de>>()? {
            let Some(index) = self.object.find(&key.0) else {
                self.state.unknown = Some(key.0.chars().take(300).collect());
                return Err(self.state.fail(Fault::new(Class::UnknownField, 0, "the table has no such column")));
            };
            let field = &self.object.fields[index];
            if seen.insert(index) {
                return Err(self.state.fail(Fault::new(Class::InvalidJson, 0, "the key comes twice").at_path(field.path)));
            }
            map.next_value_seed(FieldSeed { field, state: self.state })?;
        }
        let missing = self.object.fields.iter().enumerate().find(|(i, f)| f.required && !seen.contains(*i));
        match missing {
            Some((_, field)) => {
                Err(self.state.fail(Fault::new(Class::MissingRequired, 0, "the REQUIRED column has no value").at_path(field.path)))
            }
            None => Ok(()),
        }
    }
}

/// A key: borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct FieldSeed<'s, 'w, 'b> {
    field: &'s Field,
    state: &'s mut State<'w, 'b>,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let Self { field, state } = self;
        if field.repeated.is_some() {
            return deserializer.deserialize_any(ArrayVisitor { field, state, path: field.path });
        }
        ValueSeed { field, state, element: false, path: field.path }.deserialize(deserializer)
    }
}

struct ArrayVisitor<'s, 'w, 'b> {
    field: &'s Field,
    state: &'s mut State<'w, 'b>,
    path: u32,
}

impl<'de> Visitor<'de> for ArrayVisitor<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    refuse!("the column is REPEATED: an array is expected": visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));
    /// A null array is an empty one.
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        let fault = mismatch("the column is REPEATED: an array is expected").at_path(self.path);
        Err(self.state.fail(fault))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let packed = self.field.repeated.flatten();
        let start = match packed {
            Some(tag) => {
                let opened = self.state.w.open(tag);
                Some(self.state.check::<_, A::Error>(opened, self.path)?)
            }
            None => None,
        };
        let mut any = false;
        while items.next_element_seed(ValueSeed { field: self.field, state: self.state, element: true, path: self.path })?.is_some() {
            any = true;
        }
        if let Some(start) = start {
            if any {
                let closed = self.state.w.close(start);
                self.state.check::<_, A::Error>(closed, self.path)?;
            } else {
                // An empty block need not be there: take back its tag and length.
                self.state.w.at = start - 1 - usize::from(packed.map_or(0, |t| t.len));
            }
        }
        Ok(())
    }
}

struct ValueSeed<'s, 'w, 'b> {
    field: &'s Field,
    state: &'s mut State<'w, 'b>,
    /// Within an array, where a null cannot be.
    element: bool,
    path: u32,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match &self.field.value {
            Value::Scalar(scalar @ (Scalar::Json | Scalar::Decimal(_) | Scalar::Float64)) => {
                let raw = <&RawValue>::deserialize(deserializer)?;
                self.raw(scalar, raw.get()).map_err(D::Error::custom)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

use serde::Deserialize as _;

impl ValueSeed<'_, '_, '_> {
    fn null(self) -> Result<(), &'static str> {
        let fault = if self.element {
            Fault::new(Class::NullInRepeated, 0, "a null inside an array: BigQuery's arrays take none")
        } else if self.field.required {
            Fault::new(Class::MissingRequired, 0, "null for a REQUIRED column")
        } else {
            return Ok(());
        };
        self.state.fault.get_or_insert(fault.at_path(self.path));
        Err("")
    }

    /// Values whose text is needed as it stands: JSON; decimals, which no float may touch; floats, which serde_json reads in haste (the
    /// last digit may become another one).
    fn raw(mut self, scalar: &Scalar, text: &str) -> Result<(), &'static str> {
        if text == "null" {
            return self.null();
        }
        let tag = self.field.tag;
        let outcome = match scalar {
            Scalar::Decimal(column) if text.starts_with('"') => match serde_json::from_str::<Cow<'_, str>>(text) {
                Ok(inner) => put_decimal(self.state.w, tag, column, column.parse(&inner), 0),
                Err(_) => Err(mismatch("the text cannot be read")),
            },
            Scalar::Decimal(column) if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                put_decimal(self.state.w, tag, column, column.parse(text), 0)
            }
            Scalar::Decimal(_) => Err(mismatch("a decimal number is expected")),
            Scalar::Float64 => self.float(text),
            _ => self.state.w.delimited(tag, text.as_bytes()),
        };
        outcome.map_err(|fault| {
            self.state.fault.get_or_insert(fault.at_path(self.path));
            ""
        })
    }

    /// A FLOAT64 from a value's text.
    fn float(&mut self, text: &str) -> Result<(), Fault> {
        let (w, tag) = (&mut *self.state.w, self.field.tag);
        match text.as_bytes().first() {
            Some(b'"') => {
                let inner = serde_json::from_str::<Cow<'_, str>>(text).map_err(|_| mismatch("the text cannot be read"))?;
                return Scalar::Float64.put_parsed(w, tag, &inner, None, 0);
            }
            Some(b'-' | b'0'..=b'9') => {}
            _ => return Err(mismatch("a number is expected")),
        }
        match text.parse::<i128>() {
            Ok(0) if text.starts_with('-') => put_double(w, tag, -0.0),
            Ok(whole) if whole <= i128::from(u64::MAX) && whole >= i128::from(i64::MIN) => match i64::try_from(whole) {
                Ok(whole) => self.integer(whole),
                Err(_) => Err(Fault::new(Class::ValueOutOfRange, 0, "a whole number is beyond 64 bits")),
            },
            _ => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => put_double(w, tag, value),
                _ => Err(Fault::new(Class::ValueOutOfRange, 0, "a number is beyond FLOAT64")),
            },
        }
    }

    fn integer(&mut self, value: i64) -> Result<(), Fault> {
        let Value::Scalar(scalar) = &self.field.value else { return Err(mismatch("a JSON object is expected, not a number")) };
        let (w, tag) = (&mut *self.state.w, self.field.tag);
        match (scalar, self.field.unit) {
            (Scalar::Int64, _) => scalar.put_word(w, tag, value as u64),
            (Scalar::Float64, _) if value.unsigned_abs() <= 1 << 53 => put_double(w, tag, value as f64),
            (Scalar::Float64, _) => Err(Fault::new(Class::ValueOutOfRange, 0, "a whole number beyond 2^53 would change as FLOAT64")),
            (Scalar::Time(to), Some(unit)) => {
                let micros = civil::micros(value, unit)
                    .ok_or_else(|| Fault::new(Class::ValueOutOfRange, 0, "a date or time is beyond 64 bits of microseconds"))?;
                let value = if *to == TimeTo::Date { micros.div_euclid(civil::DAY_MICROS) } else { micros };
                if self.field.partition {
                    check_partition(as_micros(*to, value), self.state.now_us, 0)?;
                }
                put_time(w, tag, *to, value, 0)
            }
            (Scalar::Time(_), None) => Err(mismatch("a number for a date or time needs `unit` under [table.columns]")),
            _ => Err(mismatch("the column takes no number")),
        }
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, '_, '_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let outcome = match &self.field.value {
            Value::Scalar(scalar @ Scalar::Bool) => scalar.put_word(self.state.w, self.field.tag, u64::from(value)),
            _ => Err(mismatch("the column takes no boolean")),
        };
        self.state.check(outcome, self.path)
    }
    fn visit_i64<E: serde::de::Error>(mut self, value: i64) -> Result<(), E> {
        let outcome = self.integer(value);
        self.state.check(outcome, self.path)
    }
    fn visit_u64<E: serde::de::Error>(mut self, value: u64) -> Result<(), E> {
        let outcome = match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => Err(Fault::new(Class::ValueOutOfRange, 0, "a whole number is beyond 64 bits")),
        };
        self.state.check(outcome, self.path)
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let outcome = match &self.field.value {
            Value::Scalar(Scalar::Float64) => put_double(self.state.w, self.field.tag, value),
            _ => Err(mismatch("the column takes no number with a fraction")),
        };
        self.state.check(outcome, self.path)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let outcome = match &self.field.value {
            Value::Scalar(Scalar::Bool) => Err(mismatch("the column takes true or false, not text")),
            Value::Scalar(scalar) => {
                scalar.put_parsed(self.state.w, self.field.tag, text, self.field.partition.then_some(self.state.now_us), 0)
            }
            Value::Object(_) => Err(mismatch("a JSON object is expected, not text")),
        };
        self.state.check(outcome, self.path)
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.null().map_err(E::custom)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        let fault = mismatch("the column takes no array").at_path(self.path);
        Err(self.state.fail(fault))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Value::Object(object) = &self.field.value else {
            let fault = mismatch("the column takes no object").at_path(self.path);
            return Err(self.state.fail(fault));
        };
        let opened = self.state.w.open(self.field.tag);
        let start = self.state.check::<_, A::Error>(opened, self.path)?;
        ObjectSeed { object, state: self.state, path: self.path }.visit_map(map)?;
        let closed = self.state.w.close(start);
        self.state.check(closed, self.path)
    }
}
