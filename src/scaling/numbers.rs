//! Whole numbers as other people's programs write them: `12`, but also `12.0`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

struct Whole<T>(PhantomData<T>);

impl<T: TryFrom<i128>> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a whole number in range")
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<T, E> {
        T::try_from(i128::from(n)).map_err(|_| E::invalid_value(Unexpected::Signed(n), &self))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<T, E> {
        T::try_from(i128::from(n)).map_err(|_| E::invalid_value(Unexpected::Unsigned(n), &self))
    }

    /// Rounded: a simulator that counts in floating point writes 1234.5 for a lag or an offset.
    fn visit_f64<E: Error>(self, n: f64) -> Result<T, E> {
        let near = n.round();
        if !near.is_finite() || near.abs() > 9.0e18 {
            return Err(E::invalid_value(Unexpected::Float(n), &self));
        }
        T::try_from(near as i128).map_err(|_| E::invalid_value(Unexpected::Float(n), &self))
    }
}

/// A whole number, rounded when it is written with a fraction.
pub(super) fn whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(Whole(PhantomData))
}

/// The same, or unknown.
pub(super) fn some_whole<'de, D: Deserializer<'de>, T: TryFrom<i128>>(from: D) -> Result<Option<T>, D::Error> {
    struct Inner<T>(T);
    impl<'de, T: TryFrom<i128>> Deserialize<'de> for Inner<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            whole(from).map(Inner)
        }
    }
    Ok(Option::<Inner<T>>::deserialize(from)?.map(|inner| inner.0))
}
