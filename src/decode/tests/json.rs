//! JSON objects typed by the table's columns.

use serde_json::{Value, json};

use super::*;
use crate::record::RecordErrorClass as Class;
use crate::table::{ColumnType, Mode};

fn column(name: &str, ty: ColumnType, mode: Mode) -> Column {
    Column { name: name.to_owned(), ty, mode, description: None }
}

fn decode(columns: &[Column], table: &str, payload: &str) -> Result<Value, RecordError> {
    let options = options(table);
    let columns = json_columns(columns, &options).unwrap();
    let layout = LayoutHistory::new().include(&columns).unwrap();
    shown(&(Plan::json(&columns, &layout, None, &options).unwrap(), layout), payload.as_bytes())
}

fn one(ty: ColumnType, text: &str) -> Result<Value, Class> {
    decode(&[column("f", ty, Mode::Nullable)], "", &format!("{{\"f\": {text}}}")).map(|mut v| v["f"].take()).map_err(|e| e.class)
}

#[test]
fn every_types_text_form() {
    assert_eq!(one(ColumnType::Bool, "false"), Ok(json!(false)));
    assert_eq!(one(ColumnType::Int64, "-5"), Ok(json!(-5)));
    assert_eq!(one(ColumnType::Int64, "\"9223372036854775807\""), Ok(json!(i64::MAX)));
    assert_eq!(one(ColumnType::Float64, "1"), Ok(json!(1.0)));
    assert_eq!(one(ColumnType::Float64, "\"-inf\""), Ok(json!("-inf")));
    assert_eq!(one(ColumnType::Numeric(None), "0.1"), Ok(json!("0.1")), "no float touches it");
    assert_eq!(
        one(ColumnType::Numeric(None), "\"99999999999999999999999999999.999999999\""),
        Ok(json!("99999999999999999999999999999.999999999"))
    );
    assert_eq!(one(ColumnType::BigNumeric(None), "1e-38"), Ok(json!("0.00000000000000000000000000000000000001")));
    assert_eq!(one(ColumnType::String(None), "\"a\\n\\u00fc\""), Ok(json!("a\nü")));
    assert_eq!(one(ColumnType::Bytes(None), "\"/wA=\""), Ok(json!("/wA=")));
    assert_eq!(one(ColumnType::Date, "\"2026-1-2\""), Ok(json!("2026-01-02")));
    assert_eq!(one(ColumnType::Time, "\"1:02:03\""), Ok(json!("01:02:03.000000")));
    assert_eq!(one(ColumnType::DateTime, "\"2026-01-02T03:04:05\""), Ok(json!("2026-01-02 03:04:05.000000")));
    assert_eq!(one(ColumnType::Timestamp, "\"2026-01-02T03:04:05+01:00\""), Ok(json!("2026-01-02 02:04:05.000000Z")));
    assert_eq!(one(ColumnType::Json, "{\"a\":[1, null]}"), Ok(json!({"a": [1, null]})));
    assert_eq!(one(ColumnType::Geography, "\"POINT(1 2)\""), Ok(json!("POINT(1 2)")));
    assert_eq!(one(ColumnType::Range(Box::new(ColumnType::Date)), "{\"start\":\"2026-01-01\"}"), Ok(json!({"start": "2026-01-01"})));
    for ty in [ColumnType::Int64, ColumnType::Json, ColumnType::Numeric(None)] {
        assert_eq!(one(ty, "null"), Ok(Value::Null));
    }
}

#[test]
fn wrong_types_and_ranges() {
    for (ty, text, class) in [
        (ColumnType::Int64, "1.5", Class::TypeMismatch),
        (ColumnType::Int64, "9223372036854775808", Class::ValueOutOfRange),
        (ColumnType::Int64, "\"x\"", Class::TypeMismatch),
        (ColumnType::Bool, "1", Class::TypeMismatch),
        (ColumnType::String(None), "1", Class::TypeMismatch),
        (ColumnType::String(Some(1)), "\"ab\"", Class::ValueOutOfRange),
        (ColumnType::Float64, "9007199254740993", Class::ValueOutOfRange),
        (ColumnType::Bytes(None), "\"?\"", Class::TypeMismatch),
        (ColumnType::Date, "\"2026-02-30\"", Class::TypeMismatch),
        (ColumnType::Timestamp, "5", Class::TypeMismatch),
        (ColumnType::Numeric(None), "true", Class::TypeMismatch),
        (ColumnType::Numeric(None), "1e30", Class::ValueOutOfRange),
        (ColumnType::Numeric(None), "1e-10", Class::InvalidDecimal),
        (ColumnType::Int64, "[1]", Class::TypeMismatch),
        (ColumnType::Int64, "{}", Class::TypeMismatch),
        (ColumnType::Struct(vec![column("x", ColumnType::Int64, Mode::Nullable)]), "3", Class::TypeMismatch),
    ] {
        assert_eq!(one(ty.clone(), text), Err(class), "{ty} {text}");
    }
}

#[test]
fn objects_arrays_and_keys() {
    let fields = vec![column("x", ColumnType::Int64, Mode::Repeated), column("y", ColumnType::String(None), Mode::Required)];
    let columns = [column("Rows", ColumnType::Struct(fields), Mode::Repeated), column("n", ColumnType::Int64, Mode::Repeated)];
    let of = |payload: &str| decode(&columns, "", payload);
    let good = of(r#"{"rows": [{"x": [1, 2], "y": "a"}, {"y": "", "x": []}], "n": null}"#).unwrap();
    assert_eq!(good, json!({"Rows": [{"x": [1, 2], "y": "a"}, {"y": ""}]}));
    let class = |payload: &str| of(payload).unwrap_err().class;
    assert_eq!(class(r#"{"rows": [{"x": [1]}]}"#), Class::MissingRequired);
    assert_eq!(class(r#"{"n": [1, null]}"#), Class::NullInRepeated);
    assert_eq!(class(r#"{"n": 1}"#), Class::TypeMismatch);
    assert_eq!(class(r#"{"n": [1], "n": [2]}"#), Class::InvalidJson);
    assert_eq!(class("[]"), Class::TypeMismatch);
    assert_eq!(class("{\"n\": [1]} x"), Class::InvalidJson);
    assert_eq!(class("{\"n\": [1"), Class::InvalidJson);
    assert_eq!(class(""), Class::InvalidJson);
    let unknown = of(r#"{"rows": [{"y": "secret", "zz": 1}]}"#).unwrap_err();
    assert_eq!(unknown.class, Class::UnknownField);
    assert!(unknown.message.contains("`zz`") && !unknown.message.contains("secret"), "{unknown}");
}

#[test]
fn stated_columns_units_names_and_metadata() {
    let table = "metadata = [\"offset\"]\n[table.columns]\nat = { type = \"TIMESTAMP\", unit = \"ms\", name = \"happened\" }";
    assert_eq!(decode(&[], table, "{\"at\": 1}").unwrap(), json!({"happened": "1970-01-01 00:00:00.001000Z", "kafka_offset": 7}));
    // Names ignore case, and so does what is stated about them.
    let at = [column("at", ColumnType::Timestamp, Mode::Nullable)];
    assert_eq!(
        decode(&at, "[table.columns]\nAt = { unit = \"ms\", type = \"TIMESTAMP\" }", "{\"AT\": 1}").unwrap(),
        json!({"at": "1970-01-01 00:00:00.001000Z"})
    );
    let offset = decode(&[], table, "{\"kafka_offset\": 1}").unwrap_err();
    assert_eq!(offset.class, Class::UnknownField, "metadata columns are none of the record's");
}

#[test]
fn a_key_goes_to_the_column_that_is_stated_for_it_and_to_no_other() {
    let table = "[table.columns]\na = { name = \"b\" }";
    let (a, b) = (column("a", ColumnType::Int64, Mode::Nullable), column("b", ColumnType::Int64, Mode::Nullable));
    for columns in [[a.clone(), b.clone()], [b.clone(), a]] {
        assert_eq!(decode(&columns, table, "{\"a\": 1}").unwrap(), json!({"b": 1}));
        assert_eq!(decode(&columns, table, "{\"b\": 1}").unwrap_err().class, Class::UnknownField);
    }
    let required = [column("A", ColumnType::Int64, Mode::Required), b];
    let layout = LayoutHistory::new().include(&required).unwrap();
    let error = Plan::json(&required, &layout, None, &options(table)).unwrap_err();
    assert!(error.kind == UnmappableKind::TypeConflict && error.message.contains("`A` is REQUIRED"), "{error}");
}

#[test]
fn floats_are_read_to_the_last_digit() {
    let mut seed = 1u64;
    for _ in 0..20_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from_bits(seed);
        if !value.is_finite() || (value.fract() == 0.0 && value.abs() < 1e19) {
            continue;
        }
        let text = format!("{value:e}");
        assert_eq!(float_of(&text), Ok(value), "{text}");
    }
    assert_eq!(float_of("-0").map(f64::to_bits), Ok((-0.0f64).to_bits()));
    assert_eq!((float_of("1e999"), float_of("-1e-999")), (Err(Class::ValueOutOfRange), Ok(-0.0)));
    assert_eq!((float_of("100000000000000000000"), float_of("18446744073709551615")), (Ok(1e20), Err(Class::ValueOutOfRange)));
    for wrong in ["true", "[1]", "{}", "\"x\""] {
        assert_eq!(float_of(wrong), Err(Class::TypeMismatch), "{wrong}");
    }
}

/// The FLOAT64 that a value's text becomes: the row's last eight bytes.
fn float_of(text: &str) -> Result<f64, Class> {
    let (columns, options) = ([column("f", ColumnType::Float64, Mode::Nullable)], options(""));
    let layout = LayoutHistory::new().include(&columns).unwrap();
    let (plan, mut out) = (Plan::json(&columns, &layout, None, &options).unwrap(), Vec::new());
    plan.decode(format!("{{\"f\": {text}}}").as_bytes(), &record(), NOW_US, &mut out).map_err(|e| e.class)?;
    Ok(f64::from_le_bytes(*out.last_chunk().unwrap()))
}

#[test]
fn a_column_stated_with_another_type_than_the_tables_is_a_conflict_and_not_a_fault_of_each_record() {
    let have = [column("N", ColumnType::Int64, Mode::Nullable), column("wide", ColumnType::Numeric(None), Mode::Nullable)];
    let fine = options("[table.columns]\nn = { type = \"INT64\", mode = \"REQUIRED\" }\nwide = { type = \"INT64\" }");
    assert_eq!(json_columns(&have, &fine).unwrap(), have, "the table's column takes every value of what is stated");
    for (stated, words) in
        [("type = \"STRING\"", "column `N` is INT64 and [table.columns] n states STRING"), ("mode = \"REPEATED\"", "REPEATED INT64")]
    {
        let error = json_columns(&have, &options(&format!("[table.columns]\nn = {{ {stated} }}"))).unwrap_err();
        assert_eq!(error.kind, UnmappableKind::TypeConflict);
        assert!(error.message.contains(words), "{}", error.message);
    }
}
