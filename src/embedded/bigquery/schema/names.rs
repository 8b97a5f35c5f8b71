//! What datasets, tables and columns may be called (datasets, tables, schemas).

use regex::Regex;
use std::sync::LazyLock;

use crate::embedded::bigquery::error::{ApiError, ApiResult};

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

// Both patterns are constants that the tests compile; a pattern that cannot be compiled refuses every name.
static TABLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{M}\p{N}\p{Pc}\p{Pd}\p{Zs}]+$").ok());
static COLUMN: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{N}\p{Pc}\p{Pd}\p{M} &%=+:'<>#|]+$").ok());

fn matches(pattern: &LazyLock<Option<Regex>>, name: &str) -> bool {
    pattern.as_ref().is_some_and(|regex| regex.is_match(name))
}

/// Letters, digits, `_`; at most 1,024 characters.
pub(crate) fn check_dataset(name: &str) -> ApiResult<()> {
    if !name.is_empty() && name.len() <= 1024 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid dataset ID \"{name}\". Dataset IDs must be alphanumeric (plus underscores) and must be at most 1024 characters long."
    )))
}

/// Unicode L, M, N, Pc, Pd, Zs; at most 1,024 bytes.
pub(crate) fn check_table(name: &str) -> ApiResult<()> {
    if name.len() <= 1024 && matches(&TABLE, name) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "Invalid table ID \"{name}\". Table IDs must be alphanumeric (plus underscores, dashes, and spaces) and must be at most 1024 characters long."
    )))
}

/// A plain or flexible column name of at most 300 characters without a reserved prefix.
pub(crate) fn check_column(name: &str) -> ApiResult<()> {
    if name.is_empty() {
        return Err(ApiError::invalid("Field name cannot be empty."));
    }
    if name.chars().count() > 300 || !matches(&COLUMN, name) {
        return Err(ApiError::invalid(format!(
            "Invalid field name \"{name}\". Fields must contain the allowed characters, and be at most 300 characters long."
        )));
    }
    let upper = name.to_uppercase();
    if let Some(prefix) = RESERVED_PREFIXES.iter().find(|prefix| upper.starts_with(**prefix)) {
        return Err(ApiError::invalid(format!(
            "Invalid field name \"{name}\". Field names are not allowed to start with the (case-insensitive) prefixes {prefix}."
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn columns_by_rule() {
        for good in ["a", "_x", "Größe", "1st", "a b", "a-b", "a&%=+:'<>#|", &"x".repeat(300)] {
            assert!(check_column(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a.b",
            "a$",
            "a!",
            "a\"",
            "a(b)",
            "a*",
            "a,",
            "a/",
            "a;",
            "a?",
            "a@",
            "a[",
            "a\\",
            "a^",
            "a`",
            "a{",
            "a~",
            &"x".repeat(301),
        ] {
            assert!(check_column(bad).is_err(), "{bad}");
        }
        for prefix in RESERVED_PREFIXES {
            assert!(check_column(&format!("{}x", prefix.to_lowercase())).is_err(), "{prefix}");
        }
    }

    #[test]
    fn tables_and_datasets_by_rule() {
        assert!(check_table("stock updates-2_é").is_ok());
        for bad in ["", "a.b", "a/b", "a$20240101", &"é".repeat(513)] {
            assert!(check_table(bad).is_err(), "{bad}");
        }
        assert!(check_dataset("d_1").is_ok());
        for bad in ["", "d-1", "d.1", "é"] {
            assert!(check_dataset(bad).is_err(), "{bad}");
        }
    }
}
