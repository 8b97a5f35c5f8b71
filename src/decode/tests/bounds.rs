//! The work that one element of data makes: by the data, not by the schema. (Memory: `tests/fuzz/bounds.rs`.)

use super::super::ops::{Code, Op};
use super::super::shape::{Shape, Shapes};
use super::*;

/// A record of 5,000 fields that take no bytes and one that takes one.
fn sparse() -> String {
    let nulls: Vec<String> = (0..5_000).map(|i| format!(r#"{{"name":"n{i}","type":"null"}}"#)).collect();
    format!(r#"{{"type":"record","name":"Sparse","fields":[{},{{"name":"b","type":"boolean"}}]}}"#, nulls.join(","))
}

/// All operations, also those within others.
fn operations(ops: &[Op]) -> usize {
    let inner = |op: &Op| match &op.code {
        Code::Record(ops) | Code::Union(ops) => operations(ops),
        Code::Array(array) => operations(std::slice::from_ref(&array.item)),
        Code::Map(map) => operations(std::slice::from_ref(&map.value)),
        _ => 0,
    };
    ops.iter().map(|op| 1 + inner(op)).sum()
}

#[test]
fn what_takes_no_bytes_is_no_work() {
    let schema = schema(&format!(
        r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{{"type":"array","items":{}}}}},{{"name":"z","type":"null"}},
            {{"name":"e","type":{{"type":"array","items":{{"type":"record","name":"E","fields":[{{"name":"x","type":"null"}}]}}}}}}]}}"#,
        sparse()
    ));
    let (plan, layout) = own_plan(&schema, &options("")).unwrap();
    let count = match &plan.root {
        super::super::plan::Root::Avro { ops, .. } => operations(ops),
        super::super::plan::Root::Json(_) => 0,
    };
    assert_eq!(count, 4, "the array, its record, the record's boolean; the array of nothing, whose blocks are read");
    let data = [long(3), vec![1, 0, 1], long(0), long(1_000_000), long(0)].concat();
    let row = shown(&(plan, layout), &data).unwrap();
    assert_eq!(row["a"], serde_json::json!([{"b": true}, {"b": false}, {"b": true}]));
}

#[test]
fn skipping_looks_only_at_what_takes_bytes() {
    let schema = schema(&sparse());
    let shapes = Shapes::of(&schema).unwrap();
    let Shape::Record(record) = shapes.get(shapes.root) else { panic!("no record") };
    assert_eq!((record.fields.len(), record.taking.len()), (5_001, 1));
    assert_eq!((shapes.least_bytes(shapes.root), shapes.takes_nothing(shapes.root)), (1, false));
    assert!(shapes.takes_nothing(record.fields[0].shape));
}

#[test]
fn a_record_that_is_always_within_itself_does_not_take_nothing() {
    let schema = schema(r#"{"type":"record","name":"R","fields":[{"name":"n","type":"null"},{"name":"r","type":"R"}]}"#);
    let shapes = Shapes::of(&schema).unwrap();
    assert_eq!((shapes.least_bytes(shapes.root), shapes.takes_nothing(shapes.root)), (0, false));
}
