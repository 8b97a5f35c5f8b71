//! What BigQuery takes as a column's name, and which columns may partition or cluster a table.

use crate::config::PartitionEvery;

use super::{Column, ColumnType, Mode};

/// The longest column name, in characters (documentation page schemas).
const MAX_NAME_CHARS: usize = 300;
/// Prefixes that BigQuery keeps for itself; case is ignored, the harsher reading.
const RESERVED_PREFIXES: [&str; 9] = [
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE",
    "_CHANGE_TIMESTAMP",
];
/// ASCII characters beyond letters, digits and `_` that a flexible column name may have.
const FLEXIBLE_ASCII: &str = " -&%=+:'<>#|";

/// Whether two column names are the same to BigQuery: case does not count.
pub fn same_name(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() { a.eq_ignore_ascii_case(b) } else { a.to_lowercase() == b.to_lowercase() }
}

/// Whether BigQuery takes this column name, flexible ones included.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_column_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a column's name is empty".to_owned());
    }
    if name.chars().count() > MAX_NAME_CHARS {
        return Err(format!(
            "column name `{}...` is longer than BigQuery's {MAX_NAME_CHARS} characters",
            name.chars().take(40).collect::<String>()
        ));
    }
    if let Some(bad) = name.chars().find(|&c| !is_flexible(c)) {
        return Err(format!("column name `{name}` holds `{}`, which BigQuery does not take", bad.escape_default()));
    }
    let upper = name.to_uppercase();
    if let Some(prefix) = RESERVED_PREFIXES.iter().find(|p| upper.starts_with(**p)) {
        return Err(format!("column name `{name}` begins with `{prefix}`, which BigQuery keeps for itself"));
    }
    Ok(())
}

/// Letters, numbers, marks, connectors and dashes of any script. The standard library knows letters and numbers; marks and punctuation of other
/// scripts are left to BigQuery's own answer.
fn is_flexible(c: char) -> bool {
    if c.is_ascii() { c.is_ascii_alphanumeric() || c == '_' || FLEXIBLE_ASCII.contains(c) } else { !c.is_control() && !c.is_whitespace() }
}

/// Whether this column of the table can partition it by time, in parts of this length.
///
/// # Errors
/// Why not, in words.
pub fn check_partition_column(columns: &[Column], name: &str, every: PartitionEvery) -> Result<(), String> {
    let column = columns.iter().find(|c| same_name(&c.name, name)).ok_or_else(|| {
        format!(
            "partition column `{name}` is not among the table's columns: `by` of `partition` under [table] names one of them, not nested"
        )
    })?;
    if column.mode == Mode::Repeated {
        return Err(format!("column `{name}` is REPEATED: it cannot partition the table"));
    }
    match column.ty {
        ColumnType::Date if every == PartitionEvery::Hour => {
            Err(format!("column `{name}` is DATE: it cannot partition the table by the hour (`every` of `partition` under [table])"))
        }
        ColumnType::Date | ColumnType::DateTime | ColumnType::Timestamp => Ok(()),
        _ => Err(format!(
            "column `{name}` is {}: only DATE, DATETIME or TIMESTAMP partitions by time (state `[table.columns] {name} = {{ type = \"TIMESTAMP\", unit = \"ms\" }}` if it counts time)",
            column.ty
        )),
    }
}

/// Whether these columns of the table can cluster it.
///
/// # Errors
/// Why not, in words.
pub fn check_cluster_columns(columns: &[Column], names: &[String]) -> Result<(), String> {
    if names.len() > 4 {
        return Err(format!("{} cluster columns: BigQuery takes at most 4", names.len()));
    }
    for name in names {
        let column = columns.iter().find(|c| same_name(&c.name, name)).ok_or_else(|| {
            format!("cluster column `{name}` is not among the table's columns: `cluster` under [table] names some of them, not nested")
        })?;
        let fits = match column.ty {
            ColumnType::Float64
            | ColumnType::Bytes(_)
            | ColumnType::Json
            | ColumnType::Time
            | ColumnType::Struct(_)
            | ColumnType::Interval => false,
            _ => column.mode != Mode::Repeated,
        };
        if !fits {
            return Err(format!("column `{name}` is {} {:?}: it cannot cluster the table", column.ty, column.mode));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_follow_bigquerys_rules() {
        for good in ["a", "_x9", "größe", "9lives", "a b", "a-b", "x%", &"n".repeat(300)] {
            assert_eq!(check_column_name(good), Ok(()), "{good}");
        }
        for bad in ["", "a.b", "a`b", "a\"", "x(y)", "a/b", "a\n", "_table_x", "_PARTITIONTIME", "__root__", &"n".repeat(301)] {
            assert!(check_column_name(bad).is_err(), "{bad}");
        }
        assert!(same_name("Größe", "GRÖßE") && !same_name("a", "b"));
    }

    #[test]
    fn partition_and_cluster_columns_are_checked() {
        let column = |name: &str, ty, mode| Column { name: name.to_owned(), ty, mode, description: None };
        let columns = [
            column("d", ColumnType::Date, Mode::Nullable),
            column("ds", ColumnType::Date, Mode::Repeated),
            column("i", ColumnType::Int64, Mode::Nullable),
            column("f", ColumnType::Float64, Mode::Nullable),
        ];
        let refused = |name| check_partition_column(&columns, name, PartitionEvery::Day).unwrap_err();
        assert_eq!(check_partition_column(&columns, "D", PartitionEvery::Month), Ok(()));
        assert!(refused("ds").contains("REPEATED") && refused("i").contains("INT64") && refused("x").contains("not among"));
        assert!(check_partition_column(&columns, "d", PartitionEvery::Hour).unwrap_err().contains("by the hour"));
        assert_eq!(check_cluster_columns(&columns, &["d".to_owned(), "i".to_owned()]), Ok(()));
        assert!(check_cluster_columns(&columns, &["f".to_owned()]).is_err());
        assert!(check_cluster_columns(&columns, &vec!["i".to_owned(); 5]).is_err());
    }
}
