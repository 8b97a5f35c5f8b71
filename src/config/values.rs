//! Values with units, and values that must not be shown.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A length of time as people write it: `"200ms"`, `"10s"`, `"2m"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(transparent, extend("format" = "human-duration"))]
pub struct HumanDuration(#[schemars(with = "String")] pub Duration);

impl HumanDuration {
    /// So many milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }
    /// So many seconds.
    pub const fn from_secs(s: u64) -> Self {
        Self(Duration::from_secs(s))
    }
    /// The plain length.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration(&text).map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// Reads a length of time. The error does not show the text.
pub(super) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    use humantime::DurationError;
    humantime::parse_duration(text).map_err(|error| match error {
        DurationError::Empty => "it is empty",
        DurationError::NumberExpected(_) => "a number is missing",
        DurationError::UnknownUnit { unit, .. } if unit.is_empty() => "the unit is missing",
        DurationError::UnknownUnit { .. } => "the unit is not known: ms, s, m, h or d",
        DurationError::NumberOverflow => "it is too long",
        _ => "it cannot be read",
    })
}

/// Reads a number of bytes. The error does not show the text.
pub(super) fn parse_bytes(text: &str) -> Result<u64, &'static str> {
    if text.trim().parse::<u64>().is_ok() {
        return Err("the unit is missing");
    }
    text.parse::<bytesize::ByteSize>().map(|b| b.as_u64()).map_err(|_| "it cannot be read: B, kB, MB, GB, KiB, MiB or GiB")
}

/// A number of bytes as people write it: `"256 MiB"`, `"1 MB"`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(transparent, extend("format" = "human-bytes"))]
pub struct ByteSize(#[schemars(with = "String")] pub u64);

impl ByteSize {
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }
    /// The plain number.
    pub const fn bytes(self) -> u64 {
        self.0
    }
    /// As people write it, without rounding.
    fn text(self) -> String {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => format!("{} {unit}", self.0 / size),
            None => format!("{} B", self.0),
        }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_bytes(&text).map(Self).map_err(de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.text())
    }
}

/// A value that is never shown: its `Debug` and `Serialize` say `***`.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent, extend("writeOnly" = true))]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The value itself: for the call that needs it, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}
