//! What an existing table lacks of what is wanted: additions, relaxations, and conflicts in words.

use crate::config::Evolve;

use super::{Column, ColumnType, Mode, same_name};

/// What must change in a table, and what cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Columns to add, as `evolve` allows, in the order wanted.
    pub missing: Vec<MissingColumn>,
    /// REQUIRED columns to make NULLABLE, as `evolve` allows, by path.
    pub relax: Vec<Vec<String>>,
    /// Columns whose type or mode does not take what is wanted: says which, and what to do. A hold for type conflict.
    pub conflicts: Vec<String>,
    /// Changes that `evolve` does not allow: says which, and what to do. A hold for forbidden evolution.
    pub forbidden: Vec<String>,
}

/// A column that a table lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingColumn {
    /// The names of the RECORD columns around it, outermost first, as the table spells them; empty at the top level.
    pub parent: Vec<String>,
    /// The column. Never REQUIRED: BigQuery adds none to an existing table.
    pub column: Column,
}

impl Diff {
    /// Whether the table has all that is wanted.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.relax.is_empty() && self.conflicts.is_empty() && self.forbidden.is_empty()
    }
}

/// Compares a table's columns with the wanted ones, names without case. Columns that only the table has are left alone, unless they are
/// REQUIRED.
pub fn diff(existing: &[Column], wanted: &[Column], evolve: Evolve) -> Diff {
    let mut diff = Diff::default();
    compare(existing, wanted, evolve, &mut Vec::new(), &mut diff);
    diff
}

fn compare(existing: &[Column], wanted: &[Column], evolve: Evolve, parent: &mut Vec<String>, diff: &mut Diff) {
    for want in wanted {
        let Some(have) = existing.iter().find(|c| same_name(&c.name, &want.name)) else {
            if evolve == Evolve::Never {
                let path = dotted(parent, &want.name);
                diff.forbidden.push(format!(
                    "the table lacks column `{path}` ({}): add it, or set `evolve = \"add\"` under [table]",
                    describe(&want.ty, want.mode)
                ));
            } else {
                diff.missing.push(MissingColumn { parent: parent.clone(), column: addable(want) });
            }
            continue;
        };
        let path = dotted(parent, &have.name);
        if (have.mode == Mode::Repeated) != (want.mode == Mode::Repeated) || !accepts(&have.ty, &want.ty) {
            diff.conflicts.push(format!(
                "column `{path}` is {} and the schema gives {}: state the column under [table.columns], rename it there, or use another table",
                describe(&have.ty, have.mode),
                describe(&want.ty, want.mode)
            ));
            continue;
        }
        if have.mode == Mode::Required && want.mode == Mode::Nullable && evolve == Evolve::AddAndRelax {
            diff.relax.push(path_of(parent, &have.name));
        }
        if let (ColumnType::Struct(have_fields), ColumnType::Struct(want_fields)) = (&have.ty, &want.ty) {
            parent.push(have.name.clone());
            compare(have_fields, want_fields, evolve, parent, diff);
            parent.pop();
        }
    }
    for have in existing.iter().filter(|c| c.mode == Mode::Required && !wanted.iter().any(|w| same_name(&w.name, &c.name))) {
        if evolve == Evolve::AddAndRelax {
            diff.relax.push(path_of(parent, &have.name));
        } else {
            diff.forbidden.push(format!(
                "column `{}` is REQUIRED and the schema has no such field: make it NULLABLE, or set `evolve = \"add-and-relax\"` under [table]",
                dotted(parent, &have.name)
            ));
        }
    }
}

/// Whether a column of type `have` takes every value of type `want` without loss (or, for bounded lengths and precisions, with a check per
/// value).
pub fn accepts(have: &ColumnType, want: &ColumnType) -> bool {
    use ColumnType as T;
    match (have, want) {
        // Whether a whole number fits FLOAT64 depends on its width: `decode` refuses 64-bit ones.
        (T::Numeric(_) | T::BigNumeric(_) | T::Float64, T::Int64) | (T::BigNumeric(_), T::Numeric(_)) | (T::String(_), T::Json) => true,
        (T::Range(a), T::Range(b)) => a == b,
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// BigQuery adds neither REQUIRED columns nor RECORDs with REQUIRED fields to an existing table.
fn addable(column: &Column) -> Column {
    let ty = match &column.ty {
        ColumnType::Struct(fields) => ColumnType::Struct(fields.iter().map(addable).collect()),
        other => other.clone(),
    };
    let mode = if column.mode == Mode::Required { Mode::Nullable } else { column.mode };
    Column { name: column.name.clone(), ty, mode, description: column.description.clone() }
}

fn describe(ty: &ColumnType, mode: Mode) -> String {
    match mode {
        Mode::Nullable => ty.to_string(),
        Mode::Required => format!("REQUIRED {ty}"),
        Mode::Repeated => format!("REPEATED {ty}"),
    }
}

fn path_of(parent: &[String], name: &str) -> Vec<String> {
    parent.iter().cloned().chain([name.to_owned()]).collect()
}

fn dotted(parent: &[String], name: &str) -> String {
    path_of(parent, name).join(".")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn column(name: &str, ty: ColumnType, mode: Mode) -> Column {
        Column { name: name.to_owned(), ty, mode, description: None }
    }

    #[test]
    fn missing_columns_are_found_at_every_level_and_never_required() {
        let have = [column("R", ColumnType::Struct(vec![column("x", ColumnType::Int64, Mode::Nullable)]), Mode::Repeated)];
        let fields = vec![column("X", ColumnType::Int64, Mode::Nullable), column("y", ColumnType::Bool, Mode::Required)];
        let want = [column("r", ColumnType::Struct(fields), Mode::Repeated), column("new", ColumnType::Date, Mode::Required)];
        let found = diff(&have, &want, Evolve::Add);
        let missing: Vec<_> = found.missing.iter().map(|m| (m.parent.join("."), m.column.name.as_str(), m.column.mode)).collect();
        assert_eq!(missing, [("R".to_owned(), "y", Mode::Nullable), (String::new(), "new", Mode::Nullable)]);
        assert!(found.conflicts.is_empty() && found.forbidden.is_empty() && found.relax.is_empty());
        let never = diff(&have, &want, Evolve::Never);
        assert!(never.missing.is_empty() && never.forbidden.len() == 2 && never.forbidden[0].contains("`R.y`"), "{never:?}");
        assert!(diff(&have, &have, Evolve::Never).is_empty());
    }

    #[test]
    fn types_and_modes_conflict_unless_nothing_is_lost() {
        let of = |have, want| diff(&[column("c", have, Mode::Nullable)], &[column("c", want, Mode::Nullable)], Evolve::Add).conflicts.len();
        assert_eq!(of(ColumnType::Numeric(None), ColumnType::Int64), 0);
        assert_eq!(of(ColumnType::BigNumeric(None), ColumnType::Numeric(Some((20, 4)))), 0);
        assert_eq!(of(ColumnType::String(Some(5)), ColumnType::String(None)), 0);
        assert_eq!(of(ColumnType::Numeric(None), ColumnType::BigNumeric(None)), 1);
        assert_eq!(of(ColumnType::Int64, ColumnType::String(None)), 1);
        assert_eq!(of(ColumnType::Float64, ColumnType::Numeric(None)), 1);
        let modes = diff(&[column("c", ColumnType::Int64, Mode::Repeated)], &[column("c", ColumnType::Int64, Mode::Nullable)], Evolve::Add);
        assert!(modes.conflicts[0].contains("REPEATED INT64"), "{modes:?}");
    }

    #[test]
    fn required_is_relaxed_only_when_allowed() {
        let have = [column("a", ColumnType::Int64, Mode::Required), column("b", ColumnType::Int64, Mode::Required)];
        let want = [column("a", ColumnType::Int64, Mode::Nullable)];
        assert_eq!(diff(&have, &want, Evolve::AddAndRelax).relax, [vec!["a".to_owned()], vec!["b".to_owned()]]);
        let add = diff(&have, &want, Evolve::Add);
        assert!(add.relax.is_empty() && add.forbidden.len() == 1 && add.forbidden[0].contains("`b`"), "{add:?}");
    }
}
