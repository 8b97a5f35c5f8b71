//! Schemas that cannot be mapped, columns stated by hand, and tables that differ from the schema.

use serde_json::json;

use super::*;
use crate::table::{ColumnType, Mode};

fn record_of(fields: &str) -> AvroSchema {
    schema(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#))
}

fn refused(schema: &AvroSchema, table: &str) -> Unmappable {
    avro_columns(schema, &options(table)).unwrap_err()
}

#[test]
fn unmappable_schemas_say_why() {
    let twice = record_of(r#"{"name":"a","type":"int"},{"name":"A","type":"int"}"#);
    assert!(refused(&twice, "").message.contains("case does not count"));
    assert!(avro_columns(&twice, &options("[table.columns]\nA = { name = \"b\" }")).is_ok());
    assert!(refused(&record_of(r#"{"name":"_PARTITIONTIME","type":"int"}"#), "").message.contains("_PARTITION"));
    assert!(refused(&record_of(r#"{"name":"a","type":"null"}"#), "").message.contains("no field"));
    let wide = record_of(r#"{"name":"d","type":{"type":"bytes","logicalType":"decimal","precision":60,"scale":2}}"#);
    assert!(refused(&wide, "").message.contains("decimal(60, 2)"));
    assert!(refused(&record_of(r#"{"name":"kafka_topic","type":"int"}"#), "metadata = [\"topic\"]").message.contains("kafka_topic"));
    let deep =
        (0..17).fold(r#""int""#.to_owned(), |t, i| format!(r#"{{"type":"record","name":"N{i}","fields":[{{"name":"r","type":{t}}}]}}"#));
    assert!(refused(&schema(&deep), "").message.contains("15"));
}

#[test]
fn a_schema_that_doubles_at_each_level_is_refused_quickly() {
    let mut types = r#"{"type":"record","name":"T0","fields":[{"name":"a","type":"int"},{"name":"b","type":"int"}]}"#.to_owned();
    for i in 1..15 {
        types = format!(r#"{{"type":"record","name":"T{i}","fields":[{{"name":"a","type":{types}}},{{"name":"b","type":"T{}"}}]}}"#, i - 1);
    }
    assert!(refused(&schema(&types), "").message.contains("10000"));
}

#[test]
fn descriptions_come_from_doc_and_are_cut() {
    let long = "ü".repeat(2_000);
    let columns = avro_columns(&record_of(&format!(r#"{{"name":"a","type":"int","doc":"{long}"}}"#)), &options("")).unwrap();
    assert_eq!(columns[0].description.as_ref().map(|d| d.chars().count()), Some(1_024));
    assert_eq!(columns[0].mode, Mode::Nullable, "a producer may drop the field tomorrow");
}

#[test]
fn stated_columns() {
    let schema = record_of(
        r#"{"name":"t","type":"long"},{"name":"s","type":"string"},{"name":"r","type":{"type":"record","name":"I","fields":[{"name":"n","type":"int"}]}}"#,
    );
    let table = "[table.columns]\nt = { type = \"TIMESTAMP\", unit = \"s\", mode = \"REQUIRED\" }\ns = { type = \"NUMERIC(20, 4)\", name = \"price\" }\n\"r.n\" = { type = \"NUMERIC\" }";
    let columns = avro_columns(&schema, &options(table)).unwrap();
    let shown_types: Vec<_> = columns.iter().map(|c| format!("{} {} {:?}", c.name, c.ty, c.mode)).collect();
    assert_eq!(shown_types, ["t TIMESTAMP Required", "price NUMERIC(20, 4) Nullable", "r RECORD Nullable"]);
    let plan = own_plan(&schema, &options(table)).unwrap();
    let payload = [long(1), bytes("1.25"), long(3)].concat();
    assert_eq!(shown(&plan, &payload).unwrap(), json!({"t": "1970-01-01 00:00:01.000000Z", "price": "1.25", "r": {"n": "3"}}));
    let no_unit = own_plan(&schema, &options("[table.columns]\nt = { type = \"DATE\" }")).unwrap_err();
    assert!(no_unit.message.contains("unit"), "{no_unit}");
    let json = own_plan(&schema, &options("[table.columns]\nr = { type = \"JSON\" }")).unwrap();
    assert_eq!(shown(&json, &payload).unwrap()["r"], json!({"n": 3}));
    for wrong in ["t = { type = \"TEXT\" }", "t = { mode = \"MAYBE\" }", "t = { name = \"a.b\" }"] {
        let text = format!("topics = [\"t\"]\n[value]\nformat = \"avro\"\n[table]\nname = \"d.t\"\n[table.columns]\n{wrong}");
        assert!(DecodeOptions::new(&toml::from_str(&text).unwrap(), false).unwrap_err().contains("[table.columns] t"));
    }
}

#[test]
fn a_tables_own_types_count_and_nothing_is_narrowed() {
    let into = |ty: &str, column: ColumnType, payload: &[u8]| {
        let table = [Column { name: "f".to_owned(), ty: column, mode: Mode::Nullable, description: None }];
        plan_into(&field_schema(ty), &table, &options("")).map(|p| shown(&p, payload).unwrap()).map_err(|e| (e.kind, e.message))
    };
    assert_eq!(into(r#""long""#, ColumnType::Numeric(None), &long(5)), Ok(json!({"f": "5"})));
    assert_eq!(into(r#""int""#, ColumnType::BigNumeric(None), &long(-5)), Ok(json!({"f": "-5"})));
    assert_eq!(into(r#""int""#, ColumnType::Float64, &long(5)), Ok(json!({"f": 5.0})));
    let conflict = |ty: &str, column: ColumnType| {
        let (kind, message) = into(ty, column, &[]).unwrap_err();
        assert!(kind == UnmappableKind::TypeConflict && message.contains("`f`"), "{kind:?} {message}");
    };
    conflict(r#""long""#, ColumnType::Float64);
    conflict(r#""string""#, ColumnType::Int64);
    conflict(r#""int""#, ColumnType::String(None));
    conflict(r#"{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}"#, ColumnType::Float64);
    conflict(r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":30}"#, ColumnType::Numeric(None));
    conflict(r#"{"type":"array","items":"int"}"#, ColumnType::Int64);
    let missing = plan_into(&field_schema(r#""int""#), &[], &options("")).unwrap_err();
    assert_eq!(missing.kind, UnmappableKind::MissingColumn);
    let required = [
        Column { name: "f".to_owned(), ty: ColumnType::Int64, mode: Mode::Nullable, description: None },
        Column { name: "g".to_owned(), ty: ColumnType::Int64, mode: Mode::Required, description: None },
    ];
    assert_eq!(plan_into(&field_schema(r#""int""#), &required, &options("")).unwrap_err().kind, UnmappableKind::TypeConflict);
}

#[test]
fn metadata_columns_are_filled_and_can_be_renamed() {
    let all = "metadata = [\"topic\", \"partition\", \"offset\", \"timestamp\", \"key\", \"headers\", \"schema_id\", \"ingested_at\"]\nmetadata_names = { topic = \"source\" }";
    let row = shown(&own_plan(&field_schema(r#""int""#), &options(all)).unwrap(), &long(1)).unwrap();
    assert_eq!(
        row,
        json!({"f": 1, "source": "t", "kafka_partition": 3, "kafka_offset": 7, "kafka_timestamp": "1970-01-01 00:00:01.000000Z", "kafka_key": "aw==",
            "schema_id": "42", "ingested_at": "2025-10-09 08:53:20.000000Z"})
    );
}
