//! BigQuery's names of types: `NUMERIC(20, 4)`, `STRING(10)`, `RANGE<DATE>`.

use std::fmt;
use std::str::FromStr;

use super::ColumnType;

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Bool => "BOOL",
            Self::Int64 => "INT64",
            Self::Float64 => "FLOAT64",
            Self::Numeric(None) => "NUMERIC",
            Self::BigNumeric(None) => "BIGNUMERIC",
            Self::String(None) => "STRING",
            Self::Bytes(None) => "BYTES",
            Self::Date => "DATE",
            Self::Time => "TIME",
            Self::DateTime => "DATETIME",
            Self::Timestamp => "TIMESTAMP",
            Self::Json => "JSON",
            Self::Geography => "GEOGRAPHY",
            Self::Interval => "INTERVAL",
            Self::Struct(_) => "RECORD",
            Self::Numeric(Some((p, s))) => return write!(f, "NUMERIC({p}, {s})"),
            Self::BigNumeric(Some((p, s))) => return write!(f, "BIGNUMERIC({p}, {s})"),
            Self::String(Some(n)) => return write!(f, "STRING({n})"),
            Self::Bytes(Some(n)) => return write!(f, "BYTES({n})"),
            Self::Range(of) => return write!(f, "RANGE<{of}>"),
        };
        f.write_str(name)
    }
}

/// BigQuery's names of the types in SQL and REST. RECORD is refused: its fields come from the schema.
impl FromStr for ColumnType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no column type such as TIMESTAMP, NUMERIC(20, 4), STRING(10), JSON");
        let upper: String = text.to_uppercase().chars().filter(|c| !c.is_whitespace()).collect();
        if let Some(of) = upper.strip_prefix("RANGE<").and_then(|t| t.strip_suffix('>')) {
            return match of.parse()? {
                of @ (Self::Date | Self::DateTime | Self::Timestamp) => Ok(Self::Range(Box::new(of))),
                _ => Err(format!("`{text}`: a RANGE is of DATE, DATETIME or TIMESTAMP")),
            };
        }
        let (name, parameters) = match upper.split_once('(') {
            Some((name, rest)) => {
                let rest = rest.strip_suffix(')').ok_or_else(wrong)?;
                (name, rest.split(',').map(|n| n.parse::<u32>().map_err(|_| wrong())).collect::<Result<Vec<_>, _>>()?)
            }
            None => (upper.as_str(), Vec::new()),
        };
        let length = || match parameters.as_slice() {
            [] => Ok(None),
            [n] if *n > 0 => Ok(Some(u64::from(*n))),
            _ => Err(wrong()),
        };
        let decimal = |max_scale: u32, integer_digits: u32| match parameters.as_slice() {
            [] => Ok(None),
            [p] if (1..=integer_digits).contains(p) => Ok(Some((*p, 0))),
            // SQL takes a precision that is the scale, REST does not (tables, TableFieldSchema.precision).
            [p, s] if *s <= max_scale && (s + 1..=s + integer_digits).contains(p) => Ok(Some((*p, *s))),
            _ => Err(format!("`{text}`: the scale is at most {max_scale}, and 1 to {integer_digits} digits stand before the point")),
        };
        let plain = |ty: Self| if parameters.is_empty() { Ok(ty) } else { Err(wrong()) };
        match name {
            "BOOL" | "BOOLEAN" => plain(Self::Bool),
            "INT64" | "INTEGER" | "INT" => plain(Self::Int64),
            "FLOAT64" | "FLOAT" => plain(Self::Float64),
            "NUMERIC" | "DECIMAL" => Ok(Self::Numeric(decimal(9, 29)?)),
            "BIGNUMERIC" | "BIGDECIMAL" => Ok(Self::BigNumeric(decimal(38, 38)?)),
            "STRING" => Ok(Self::String(length()?)),
            "BYTES" => Ok(Self::Bytes(length()?)),
            "DATE" => plain(Self::Date),
            "TIME" => plain(Self::Time),
            "DATETIME" => plain(Self::DateTime),
            "TIMESTAMP" => plain(Self::Timestamp),
            "JSON" => plain(Self::Json),
            "GEOGRAPHY" => plain(Self::Geography),
            "INTERVAL" => plain(Self::Interval),
            "RECORD" | "STRUCT" => Err("a RECORD cannot be stated by its type: its fields come from the schema".to_owned()),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_as_they_are_shown() {
        for text in ["BOOL", "INT64", "NUMERIC", "NUMERIC(20, 4)", "BIGNUMERIC(76, 38)", "STRING(10)", "BYTES", "RANGE<DATE>", "JSON"] {
            assert_eq!(text.parse::<ColumnType>().unwrap().to_string(), text);
        }
        assert_eq!("numeric(5)".parse::<ColumnType>(), Ok(ColumnType::Numeric(Some((5, 0)))));
    }

    #[test]
    fn wrong_types_are_refused() {
        for text in [
            "",
            "TEXT",
            "NUMERIC(39, 9)",
            "NUMERIC(10, 10)",
            "NUMERIC(9, 9)",
            "BIGNUMERIC(38, 38)",
            "NUMERIC(3, 4)",
            "STRING(0)",
            "STRING(x)",
            "DATE(3)",
            "RANGE<TIME>",
            "RECORD",
            "NUMERIC(1",
        ] {
            assert!(text.parse::<ColumnType>().is_err(), "{text}");
        }
    }
}
