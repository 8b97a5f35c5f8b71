//! Each Avro type, logical type and Debezium type to its column.

use serde_json::{Value, json};

use super::*;

/// The column's type and the row's value of field `f`.
fn of(ty: &str, table: &str, payload: &[u8]) -> (String, Value) {
    let (schema, options) = (field_schema(ty), options(table));
    let column = avro_columns(&schema, &options).unwrap().remove(0).ty.to_string();
    (column, shown(&own_plan(&schema, &options).unwrap(), payload).unwrap()["f"].take())
}

fn plain(ty: &str, payload: &[u8]) -> (String, Value) {
    of(ty, "", payload)
}

fn logical(base: &str, logical: &str) -> String {
    format!(r#"{{"type":"{base}","logicalType":"{logical}"}}"#)
}

fn is(column: &str, value: Value) -> (String, Value) {
    (column.to_owned(), value)
}

#[test]
fn primitives() {
    assert_eq!(plain(r#""boolean""#, &[1]), is("BOOL", json!(true)));
    assert_eq!(plain(r#""boolean""#, &[0]), is("BOOL", json!(false)), "false is written: absent would be NULL");
    assert_eq!(plain(r#""int""#, &long(-5)), is("INT64", json!(-5)));
    assert_eq!(plain(r#""long""#, &long(i64::MIN)), is("INT64", json!(i64::MIN)));
    assert_eq!(plain(r#""long""#, &long(0)), is("INT64", json!(0)));
    assert_eq!(plain(r#""float""#, &1.5f32.to_le_bytes()), is("FLOAT64", json!(1.5)));
    assert_eq!(plain(r#""double""#, &f64::NAN.to_le_bytes()), is("FLOAT64", json!("NaN")));
    assert_eq!(plain(r#""bytes""#, &bytes([255, 0])), is("BYTES", json!("/wA=")));
    for text in ["", "a", "grün", &"x".repeat(31), &"ü".repeat(40), &"y".repeat(300)] {
        assert_eq!(plain(r#""string""#, &bytes(text)), is("STRING", json!(text)));
    }
    assert_eq!(plain(r#"{"type":"fixed","name":"F","size":2}"#, &[1, 2]), is("BYTES", json!("AQI=")));
    assert_eq!(plain(r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, &long(1)), is("STRING", json!("B")));
    assert_eq!(plain(r#"["null","int"]"#, &long(0)), is("INT64", Value::Null));
    assert_eq!(plain(r#"["int","null"]"#, &[long(0), long(9)].concat()), is("INT64", json!(9)));
    assert_eq!(plain(r#"["int"]"#, &[long(0), long(9)].concat()), is("INT64", json!(9)));
}

#[test]
fn dates_and_times() {
    assert_eq!(plain(&logical("int", "date"), &long(-1)), is("DATE", json!("1969-12-31")));
    assert_eq!(plain(&logical("int", "time-millis"), &long(3_723_004)), is("TIME", json!("01:02:03.004000")));
    assert_eq!(plain(&logical("long", "time-micros"), &long(86_399_999_999)), is("TIME", json!("23:59:59.999999")));
    assert_eq!(plain(&logical("long", "timestamp-millis"), &long(-1)), is("TIMESTAMP", json!("1969-12-31 23:59:59.999000Z")));
    assert_eq!(plain(&logical("long", "timestamp-micros"), &long(1)), is("TIMESTAMP", json!("1970-01-01 00:00:00.000001Z")));
    assert_eq!(plain(&logical("long", "timestamp-nanos"), &long(-1)), is("TIMESTAMP", json!("1969-12-31 23:59:59.999999Z")));
    assert_eq!(plain(&logical("long", "local-timestamp-millis"), &long(1)), is("DATETIME", json!("1970-01-01 00:00:00.001000")));
    assert_eq!(plain(&logical("long", "local-timestamp-micros"), &long(-1)), is("DATETIME", json!("1969-12-31 23:59:59.999999")));
    assert_eq!(plain(&logical("long", "local-timestamp-nanos"), &long(1_001)), is("DATETIME", json!("1970-01-01 00:00:00.000001")));
}

#[test]
fn decimals_uuids_durations() {
    let decimal = |p: u32, s: u32| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{p},"scale":{s}}}"#);
    assert_eq!(plain(&decimal(10, 2), &bytes([0xff, 0x85])), is("NUMERIC", json!("-1.23")));
    assert_eq!(plain(&decimal(40, 11), &bytes([1])), is("BIGNUMERIC", json!("0.00000000001")));
    let fixed = r#"{"type":{"type":"fixed","name":"D","size":4},"logicalType":"decimal","precision":8,"scale":0}"#;
    let schema = schema(&format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{fixed}}}]}}"#));
    assert_eq!(shown(&own_plan(&schema, &options("")).unwrap(), &[0, 0, 1, 0]).unwrap(), json!({"f": "256"}));
    let text = "0f0e0d0c-0b0a-0908-0706-050403020100";
    assert_eq!(plain(&logical("string", "uuid"), &bytes(text)), is("STRING", json!(text)));
    let uuid = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;
    assert_eq!(plain(uuid, &(0..16).rev().collect::<Vec<u8>>()), is("STRING", json!(text)));
    let duration = r#"{"type":"fixed","name":"L","size":12,"logicalType":"duration"}"#;
    assert_eq!(plain(duration, &[1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0]), is("RECORD", json!({"months": 1, "days": 2, "millis": 256})));
    let big = [bytes([1, 0]), long(3)].concat();
    assert_eq!(plain(&logical("bytes", "big-decimal"), &bytes(big)), is("BIGNUMERIC", json!("0.256")));
}

#[test]
fn debezium() {
    let named =
        |base: &str, name: &str| format!(r#"["null",{{"type":"{base}","connect.version":1,"connect.name":"io.debezium.time.{name}"}}]"#);
    let some = |value: Vec<u8>| [long(1), value].concat();
    assert_eq!(plain(&named("int", "Date"), &some(long(1))), is("DATE", json!("1970-01-02")));
    assert_eq!(plain(&named("int", "Time"), &some(long(1))), is("TIME", json!("00:00:00.001000")));
    assert_eq!(plain(&named("long", "MicroTime"), &some(long(1))), is("TIME", json!("00:00:00.000001")));
    assert_eq!(plain(&named("long", "Timestamp"), &some(long(1))), is("TIMESTAMP", json!("1970-01-01 00:00:00.001000Z")));
    assert_eq!(plain(&named("long", "MicroTimestamp"), &some(long(1))), is("TIMESTAMP", json!("1970-01-01 00:00:00.000001Z")));
    let zoned = some(bytes("2020-01-01T01:00:00.5+01:00"));
    assert_eq!(plain(&named("string", "ZonedTimestamp"), &zoned), is("TIMESTAMP", json!("2020-01-01 00:00:00.500000Z")));
    let decimal = r#"{"type":"record","name":"VariableScaleDecimal","namespace":"io.debezium.data","fields":[{"name":"scale","type":"int"},{"name":"value","type":"bytes"}]}"#;
    assert_eq!(plain(decimal, &[long(2), bytes([123])].concat()), is("BIGNUMERIC", json!("1.23")));
}

#[test]
fn arrays_maps_and_records() {
    let blocks = [long(2), long(1), long(2), long(-1), long(1), long(3), long(0)].concat();
    assert_eq!(plain(r#"{"type":"array","items":"int"}"#, &blocks), is("INT64", json!([1, 2, 3])));
    assert_eq!(plain(r#"["null",{"type":"array","items":"string"}]"#, &long(0)), is("STRING", Value::Null));
    let strings = [long(2), bytes("a"), bytes(""), long(0)].concat();
    assert_eq!(plain(r#"{"type":"array","items":"string"}"#, &strings), is("STRING", json!(["a", ""])));
    let map = [long(2), bytes("a"), long(1), bytes("b"), long(2), long(0)].concat();
    assert_eq!(plain(r#"{"type":"map","values":"long"}"#, &map), is("RECORD", json!([{"key": "a", "value": 1}, {"key": "b", "value": 2}])));
    let inner = r#"{"type":"record","name":"I","fields":[{"name":"n","type":"null"},{"name":"x","type":"int"},{"name":"e","type":{"type":"record","name":"E","fields":[]}}]}"#;
    assert_eq!(plain(inner, &long(7)), is("RECORD", json!({"x": 7})), "null and empty records have no column");
    let long_inner = r#"{"type":"array","items":{"type":"record","name":"S","fields":[{"name":"s","type":"string"}]}}"#;
    let text = "z".repeat(200);
    assert_eq!(plain(long_inner, &[long(1), bytes(&text), long(0)].concat()), is("RECORD", json!([{"s": text}])));
}

#[test]
fn nulls_in_arrays_and_arrays_of_arrays_are_wrapped_by_choice() {
    let nullable = r#"{"type":"array","items":["null","int"]}"#;
    let payload = [long(2), long(0), long(1), long(5), long(0)].concat();
    assert_eq!(of(nullable, "repeated_null = \"wrap\"", &payload), is("RECORD", json!([{}, {"value": 5}])));
    let nested = r#"{"type":"array","items":{"type":"array","items":"int"}}"#;
    let payload = [long(2), long(1), long(9), long(0), long(0), long(0)].concat();
    assert_eq!(of(nested, "repeated_null = \"wrap\"", &payload), is("RECORD", json!([{"value": [9]}, {}])));
    assert!(avro_columns(&field_schema(nested), &options("")).unwrap_err().message.contains("array of arrays"));
}

#[test]
fn unions_are_records_or_json() {
    let union = r#"["null","int",{"type":"record","name":"P","namespace":"a.b","fields":[{"name":"x","type":"string"}]}]"#;
    assert_eq!(plain(union, &[long(1), long(4)].concat()), is("RECORD", json!({"int": 4})));
    assert_eq!(plain(union, &[long(2), bytes("q")].concat()), is("RECORD", json!({"P": {"x": "q"}})));
    assert_eq!(plain(union, &long(0)), is("RECORD", Value::Null));
    assert_eq!(of(union, "unions = \"json\"", &[long(2), bytes("\"q\"")].concat()), is("JSON", json!({"x": "\"q\""})));
}

#[test]
fn a_union_that_is_json_is_null_as_any_column_is() {
    let union = field_schema(r#"["int","null","string"]"#);
    let row = |table: &str, payload: &[u8]| {
        let mut out = Vec::new();
        let (plan, _) = own_plan(&union, &options(table)).unwrap();
        plan.decode(payload, &record(), NOW_US, &mut out).map(|()| out).map_err(|e| e.class)
    };
    let json = "unions = \"json\"";
    assert_eq!(row(json, &long(1)), Ok(Vec::new()), "JSON's null is not NULL");
    assert_eq!(row(json, &[long(0), long(5)].concat()), Ok(b"\x0a\x015".to_vec()));
    assert_eq!(
        row(&format!("{json}\ncolumns = {{ f = {{ mode = \"REQUIRED\" }} }}"), &long(1)),
        Err(crate::record::RecordErrorClass::MissingRequired)
    );
    let array = field_schema(r#"{"type":"array","items":["null","int","string"]}"#);
    let items = shown(&own_plan(&array, &options(json)).unwrap(), &[long(2), long(0), long(1), long(5), long(0)].concat()).unwrap();
    assert_eq!(items, json!({"f": [null, 5]}), "an array has no other null");
}

#[test]
fn recursion_is_json_by_choice() {
    let node = schema(r#"{"type":"record","name":"N","fields":[{"name":"v","type":"int"},{"name":"next","type":["null","N"]}]}"#);
    let refused = avro_columns(&node, &options("")).unwrap_err();
    assert!(refused.message.contains("`next`") && refused.message.contains("`N`") && refused.kind == UnmappableKind::Schema, "{refused}");
    let plan = own_plan(&node, &options("recursive = \"json\"")).unwrap();
    let payload = [long(1), long(1), long(2), long(1), long(3), long(0)].concat();
    assert_eq!(shown(&plan, &payload).unwrap(), json!({"v": 1, "next": {"v": 2, "next": {"v": 3, "next": null}}}));
    let endless: Vec<u8> = (0..10_000).flat_map(|_| [long(1), long(1)].concat()).collect();
    assert_eq!(shown(&plan, &endless).unwrap_err().class, crate::record::RecordErrorClass::TooDeep);
    let tree =
        schema(r#"{"type":"record","name":"N","fields":[{"name":"v","type":"int"},{"name":"kids","type":{"type":"map","values":"N"}}]}"#);
    let plan = own_plan(&tree, &options("recursive = \"json\"")).unwrap();
    let deep =
        |levels| [long(0), (0..levels).flat_map(|_| [long(1), bytes("k"), long(0)].concat()).collect(), vec![0; levels + 1]].concat();
    assert!(shown(&plan, &deep(200)).is_ok());
    assert_eq!(shown(&plan, &deep(10_000)).unwrap_err().class, crate::record::RecordErrorClass::TooDeep);
}

#[test]
fn a_value_that_is_no_record_is_one_column() {
    let plan = own_plan(&schema(r#""string""#), &options("")).unwrap();
    assert_eq!(shown(&plan, &bytes("x")).unwrap(), json!({"value": "x"}));
}

#[test]
fn references_are_found_by_full_name() {
    let texts = [
        r#"{"type":"record","name":"Price","namespace":"shop.types","fields":[{"name":"amount","type":"int"}]}"#,
        r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"a","type":"shop.types.Price"},{"name":"b","type":["null","shop.types.Price"]}]}"#,
    ];
    let (root, references) = apache_avro::Schema::parse_str_with_list(texts[1], [texts[0]]).unwrap();
    let schema = AvroSchema { id: "1".to_owned(), root, references, connect_names: ConnectNames::default() };
    let plan = own_plan(&schema, &options("")).unwrap();
    assert_eq!(shown(&plan, &[long(1), long(1), long(2)].concat()).unwrap(), json!({"a": {"amount": 1}, "b": {"amount": 2}}));
}
