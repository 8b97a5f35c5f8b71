//! What a table needs so that it takes several callers' columns: pure.

use serde_json::{Value, json};

use super::TableError;
use super::table_json::{TableResource, merge};
use super::tables::Wanted;
use crate::flow::HoldCause;
use crate::table::{Column, Diff, TableName, diff};

/// Whether the table has what is wanted: `Ok(true)`; whether it can be changed so that it has: `Ok(false)`; else why not.
pub(super) fn judge(table: &TableName, resource: &TableResource, wanted: &Wanted) -> Result<bool, TableError> {
    let difference = diff(&resource.state.columns, &wanted.columns, wanted.spec.evolve);
    let refused =
        |cause, words: &[String]| Err(TableError { cause, message: format!("table {table}: {}", words.join("; ")), retry_after: None });
    if !difference.conflicts.is_empty() {
        return refused(HoldCause::TypeConflict, &difference.conflicts);
    }
    if !difference.forbidden.is_empty() {
        return refused(HoldCause::EvolutionForbidden, &difference.forbidden);
    }
    Ok(difference.missing.is_empty() && difference.relax.is_empty())
}

/// The body of a patch that gives the table the columns of all callers whose wishes can be met; `None` when there is nothing to change.
///
/// The present fields stay as they are, raw, in order; those whose wish cannot be met find out in their own turn.
pub(super) fn patch_body(resource: &TableResource, wishes: &[Wanted]) -> Option<Value> {
    let present = resource.raw.pointer("/schema/fields").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut fields = present.clone();
    for wish in wishes {
        // What the wishes before this one added counts as present.
        let so_far = TableResource::parse(json!({ "schema": { "fields": fields } })).ok()?;
        let difference = diff(&so_far.state.columns, &wish.columns, wish.spec.evolve);
        if !possible(&difference) {
            continue;
        }
        let mut merged = fields.clone();
        if merge(&mut merged, &difference).is_ok() {
            fields = merged;
        }
    }
    (fields != present).then(|| json!({ "schema": { "fields": fields } }))
}

fn possible(difference: &Diff) -> bool {
    difference.conflicts.is_empty() && difference.forbidden.is_empty()
}

/// The columns of a table that is created for several callers: the first one's as they are, then what the others add.
pub(super) fn created_columns(first: &Wanted, wishes: &[Wanted]) -> Vec<Column> {
    let mut fields: Vec<Value> = first.columns.iter().map(super::table_json::field_json).collect();
    let parse = |fields: &[Value]| TableResource::parse(json!({ "schema": { "fields": fields } })).map(|r| r.state.columns);
    for wish in wishes {
        let Ok(so_far) = parse(&fields) else { continue };
        let difference = diff(&so_far, &wish.columns, crate::config::Evolve::Add);
        // A REQUIRED column that another caller lacks is not its fault: missing columns are added all the same.
        if difference.conflicts.is_empty() {
            let mut merged = fields.clone();
            if merge(&mut merged, &difference).is_ok() {
                fields = merged;
            }
        }
    }
    parse(&fields).unwrap_or_else(|_| first.columns.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::bigquery::TableSpec;
    use crate::config::Evolve;
    use crate::table::{ColumnType, Mode};

    fn wish(evolve: Evolve, columns: &[(&str, ColumnType)]) -> Wanted {
        let column =
            |(name, ty): &(&str, ColumnType)| Column { name: (*name).to_owned(), ty: ty.clone(), mode: Mode::Nullable, description: None };
        Wanted {
            spec: TableSpec { create: true, partition: None, cluster: Vec::new(), evolve },
            columns: columns.iter().map(column).collect(),
        }
    }

    fn names(body: &Value) -> Vec<&str> {
        body["schema"]["fields"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn one_patch_serves_all_who_wait_and_skips_those_who_conflict() {
        let present = json!({ "schema": { "fields": [{ "name": "id", "type": "INTEGER" }] } });
        let resource = TableResource::parse(present).unwrap();
        let wishes = [
            wish(Evolve::Add, &[("id", ColumnType::Int64), ("a", ColumnType::Date)]),
            wish(Evolve::Add, &[("A", ColumnType::Date), ("b", ColumnType::Bool)]),
            wish(Evolve::Add, &[("a", ColumnType::Bool), ("c", ColumnType::Bool)]),
            wish(Evolve::Never, &[("d", ColumnType::Bool)]),
        ];
        assert_eq!(names(&patch_body(&resource, &wishes).unwrap()), ["id", "a", "b"]);
        assert_eq!(patch_body(&resource, &wishes[3..]), None);
        let table = TableName { project: "p".into(), dataset: "d".into(), table: "t".into() };
        let never = judge(&table, &resource, &wishes[3]).unwrap_err();
        assert!(never.cause == HoldCause::EvolutionForbidden && never.message.contains("p.d.t"), "{never:?}");
        assert_eq!(judge(&table, &resource, &wishes[0]), Ok(false));
        let clash = wish(Evolve::Add, &[("id", ColumnType::Bool)]);
        assert_eq!(judge(&table, &resource, &clash).unwrap_err().cause, HoldCause::TypeConflict);
    }

    #[test]
    fn a_table_is_created_with_everybodys_columns() {
        let first = wish(Evolve::Add, &[("id", ColumnType::Int64)]);
        let others = [first.clone(), wish(Evolve::Add, &[("ID", ColumnType::Int64), ("x", ColumnType::Json)])];
        let columns: Vec<String> = created_columns(&first, &others).into_iter().map(|c| c.name).collect();
        assert_eq!(columns, ["id", "x"]);
    }
}
