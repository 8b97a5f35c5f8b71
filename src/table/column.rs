//! A table's name and its columns.

use std::fmt;
use std::str::FromStr;

/// `project.dataset.table`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The Google Cloud project that owns the dataset.
    pub project: String,
    /// The dataset.
    pub dataset: String,
    /// The table.
    pub table: String,
}

impl TableName {
    /// The default stream of the Storage Write API: `projects/p/datasets/d/tables/t/streams/_default`.
    pub fn default_stream(&self) -> String {
        format!("{}/streams/_default", self.resource())
    }

    /// The resource's name: `projects/p/datasets/d/tables/t`.
    pub fn resource(&self) -> String {
        format!("projects/{}/datasets/{}/tables/{}", self.project, self.dataset, self.table)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.project, self.dataset, self.table)
    }
}

impl FromStr for TableName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = s.split('.').collect();
        match parts.as_slice() {
            [project, dataset, table] if parts.iter().all(|p| !p.is_empty()) => {
                Ok(Self { project: (*project).to_owned(), dataset: (*dataset).to_owned(), table: (*table).to_owned() })
            }
            _ => Err(format!("`{s}` is no table name: expected project.dataset.table")),
        }
    }
}

/// Whether a column may be null, must be there, or is an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// May be NULL.
    Nullable,
    /// Must not be NULL.
    Required,
    /// An array without NULL elements.
    Repeated,
}

/// A column's type, with the parameters that BigQuery keeps for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ColumnType {
    /// BOOL.
    Bool,
    /// INT64.
    Int64,
    /// FLOAT64.
    Float64,
    /// NUMERIC; precision and scale where the column has them.
    Numeric(Option<(u32, u32)>),
    /// BIGNUMERIC; precision and scale where the column has them.
    BigNumeric(Option<(u32, u32)>),
    /// STRING; the maximum length in code points where the column has one.
    String(Option<u64>),
    /// BYTES; the maximum length in bytes where the column has one.
    Bytes(Option<u64>),
    /// DATE.
    Date,
    /// TIME.
    Time,
    /// DATETIME.
    DateTime,
    /// TIMESTAMP.
    Timestamp,
    /// JSON.
    Json,
    /// GEOGRAPHY.
    Geography,
    /// INTERVAL.
    Interval,
    /// RANGE of DATE, DATETIME or TIMESTAMP.
    Range(Box<ColumnType>),
    /// STRUCT with its columns in order.
    Struct(Vec<Column>),
}

/// One column of a table, or one field of a STRUCT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Column {
    /// Its name: unique within its level, ignoring case.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// NULLABLE, REQUIRED or REPEATED.
    pub mode: Mode,
    /// Its description, at most 1,024 characters (BigQuery's limit).
    pub description: Option<String>,
}
