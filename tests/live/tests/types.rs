//! Every Avro type that the emulator can hold, end to end, read back by the API with Google's own client. The rest is in `embedded`.

use apache_avro::types::Value;
use serde_json::{Value as Json, json};

use super::columns::{Field, NULLABLE, decimal, field, logical, optional, read_back, record, text, times};
use crate::harness::installation::Installation;
use crate::harness::servers::Servers;

pub fn every_avro_type_reads_back_as_it_was_written(servers: &Servers) -> anyhow::Result<()> {
    let fields: Vec<Field> = [scalars(), logicals(), nested()].into_iter().flatten().chain(times()).collect();
    let reader = servers.emulator()?.reader();
    reader.create_dataset("types")?;
    let installation = Installation::new(servers, "types::every_avro_type_reads_back_as_it_was_written")?;
    read_back(servers, &installation, reader, "types", &fields)
}

fn scalars() -> Vec<Field> {
    use Value::{Boolean, Bytes, Double, Enum, Fixed, Float, Int, Long};
    vec![
        field("f_boolean", json!("boolean"), ("BOOLEAN", NULLABLE), [(Boolean(true), json!(true)), (Boolean(false), json!(false))]),
        field("f_int", json!("int"), ("INTEGER", NULLABLE), [(Int(i32::MIN), json!(i32::MIN)), (Int(i32::MAX), json!(i32::MAX))]),
        field("f_long", json!("long"), ("INTEGER", NULLABLE), [(Long(i64::MIN), json!(i64::MIN)), (Long(i64::MAX), json!(i64::MAX))]),
        field("f_float", json!("float"), ("FLOAT", NULLABLE), [(Float(-1.5), json!(-1.5)), (Float(0.25), json!(0.25))]),
        field("f_double", json!("double"), ("FLOAT", NULLABLE), [(Double(1e300), json!(1e300)), (Double(-0.1), json!(-0.1))]),
        field(
            "f_string",
            json!("string"),
            ("STRING", NULLABLE),
            [(text("naïve ✓ 🦀 'quoted' \\"), json!("naïve ✓ 🦀 'quoted' \\")), (text(""), json!(""))],
        ),
        field("f_bytes", json!("bytes"), ("BYTES", NULLABLE), [(Bytes(vec![0, 255, 16]), json!("AP8Q")), (Bytes(vec![]), json!(""))]),
        field(
            "f_fixed",
            json!({"type": "fixed", "name": "Four", "size": 4}),
            ("BYTES", NULLABLE),
            [(Fixed(4, vec![1, 2, 3, 4]), json!("AQIDBA==")), (Fixed(4, vec![0; 4]), json!("AAAAAA=="))],
        ),
        field(
            "f_enum",
            json!({"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN"]}),
            ("STRING", NULLABLE),
            [(Enum(1, "GREEN".to_owned()), json!("GREEN")), (Enum(0, "RED".to_owned()), json!("RED"))],
        ),
        field(
            "f_optional",
            json!(["null", "string"]),
            ("STRING", NULLABLE),
            [(optional(Some(text("there"))), json!("there")), (optional(None), Json::Null)],
        ),
    ]
}

fn logicals() -> Vec<Field> {
    use Value::{Bytes, Fixed, Int, Long};
    vec![
        // 123456.7891 is the unscaled 1234567891; the second is negative, in two's complement with the fewest bytes.
        field(
            "f_decimal",
            decimal(20, 4),
            ("NUMERIC", NULLABLE),
            [(Bytes(1_234_567_891_i64.to_be_bytes().to_vec()), json!("123456.7891")), (Bytes(vec![0xFF]), json!("-0.0001"))],
        ),
        field(
            "f_decimal_fixed",
            json!({"type": "fixed", "name": "Money", "size": 8, "logicalType": "decimal", "precision": 10, "scale": 2}),
            ("NUMERIC", NULLABLE),
            [
                (Fixed(8, 9_999_999_999_i64.to_be_bytes().to_vec()), json!("99999999.99")),
                (Fixed(8, (-1_i64).to_be_bytes().to_vec()), json!("-0.01")),
            ],
        ),
        field(
            "f_bignumeric",
            decimal(38, 18),
            ("BIGNUMERIC", NULLABLE),
            [
                (Bytes(1_i64.to_be_bytes().to_vec()), json!("0.000000000000000001")),
                (Bytes((-5_i128 * 10_i128.pow(18)).to_be_bytes().to_vec()), json!("-5")),
            ],
        ),
        field("f_date", logical("int", "date"), ("DATE", NULLABLE), [(Int(20_000), json!("2024-10-04")), (Int(-1), json!("1969-12-31"))]),
        field(
            "f_timestamp_millis",
            logical("long", "timestamp-millis"),
            ("TIMESTAMP", NULLABLE),
            [(Long(1_700_000_000_123), json!("2023-11-14T22:13:20.123000+00:00")), (Long(-1), json!("1969-12-31T23:59:59.999000+00:00"))],
        ),
        field(
            "f_timestamp_micros",
            logical("long", "timestamp-micros"),
            ("TIMESTAMP", NULLABLE),
            [(Long(1_700_000_000_123_456), json!("2023-11-14T22:13:20.123456+00:00")), (Long(0), json!("1970-01-01T00:00:00+00:00"))],
        ),
        // Nanoseconds are cut towards the past: -1 ns lies in the microsecond before the epoch.
        field(
            "f_timestamp_nanos",
            logical("long", "timestamp-nanos"),
            ("TIMESTAMP", NULLABLE),
            [
                (Long(1_700_000_000_123_456_789), json!("2023-11-14T22:13:20.123456+00:00")),
                (Long(-1), json!("1969-12-31T23:59:59.999999+00:00")),
            ],
        ),
        field(
            "f_local_millis",
            logical("long", "local-timestamp-millis"),
            ("DATETIME", NULLABLE),
            [(Long(1_700_000_000_123), json!("2023-11-14T22:13:20.123000")), (Long(-1), json!("1969-12-31T23:59:59.999000"))],
        ),
        field(
            "f_local_micros",
            logical("long", "local-timestamp-micros"),
            ("DATETIME", NULLABLE),
            [(Long(1_700_000_000_123_456), json!("2023-11-14T22:13:20.123456")), (Long(0), json!("1970-01-01T00:00:00"))],
        ),
        field(
            "f_uuid",
            logical("string", "uuid"),
            ("STRING", NULLABLE),
            [
                (text("4f6c2a0e-7d4e-4a53-9f35-0f4a0f7d1c11"), json!("4f6c2a0e-7d4e-4a53-9f35-0f4a0f7d1c11")),
                (text("00000000-0000-0000-0000-000000000000"), json!("00000000-0000-0000-0000-000000000000")),
            ],
        ),
        field(
            "f_uuid_fixed",
            json!({"type": "fixed", "name": "Uuid", "size": 16, "logicalType": "uuid"}),
            ("STRING", NULLABLE),
            [
                (Fixed(16, (0..16).collect()), json!("00010203-0405-0607-0809-0a0b0c0d0e0f")),
                (Fixed(16, vec![0xFF; 16]), json!("ffffffff-ffff-ffff-ffff-ffffffffffff")),
            ],
        ),
        field(
            "f_duration",
            json!({"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"}),
            ("RECORD", NULLABLE),
            [
                (Fixed(12, vec![1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]), json!({"months": 1, "days": 2, "millis": 3})),
                (Fixed(12, vec![0xFF; 12]), json!({"months": u32::MAX, "days": u32::MAX, "millis": u32::MAX})),
            ],
        ),
    ]
}

fn nested() -> Vec<Field> {
    use Value::{Array, Double, Int, Long, Map, Union};
    let place = json!({"type": "record", "name": "Place", "fields": [
        {"name": "shelf", "type": "int"},
        {"name": "note", "type": ["null", "string"]},
        {"name": "size", "type": {"type": "record", "name": "Size", "fields": [{"name": "depth", "type": "double"}]}},
    ]});
    let in_place = |shelf: i32, note: Option<&str>, depth: f64| {
        record(&[("shelf", Int(shelf)), ("note", optional(note.map(text))), ("size", record(&[("depth", Double(depth))]))])
    };
    vec![
        field(
            "f_record",
            place,
            ("RECORD", NULLABLE),
            [
                (in_place(3, Some("high"), 0.5), json!({"shelf": 3, "note": "high", "size": {"depth": 0.5}})),
                (in_place(4, None, 2.0), json!({"shelf": 4, "note": null, "size": {"depth": 2.0}})),
            ],
        ),
        field(
            "f_array",
            json!({"type": "array", "items": "string"}),
            ("STRING", "REPEATED"),
            [(Array(vec![text("a"), text("b")]), json!(["a", "b"])), (Array(vec![]), json!([]))],
        ),
        field(
            "f_records",
            json!({"type": "array", "items": {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}, {"name": "count", "type": "long"}]}}),
            ("RECORD", "REPEATED"),
            [
                (Array(vec![record(&[("sku", text("x")), ("count", Long(2))])]), json!([{"sku": "x", "count": 2}])),
                (Array(vec![]), json!([])),
            ],
        ),
        field(
            "f_map",
            json!({"type": "map", "values": "long"}),
            ("RECORD", "REPEATED"),
            [(Map([("k".to_owned(), Long(7))].into()), json!([{"key": "k", "value": 7}])), (Map([].into()), json!([]))],
        ),
        field(
            "f_union",
            json!(["null", "string", "long"]),
            ("RECORD", NULLABLE),
            [
                (Union(1, Box::new(text("words"))), json!({"string": "words", "long": null})),
                (Union(2, Box::new(Long(9))), json!({"string": null, "long": 9})),
            ],
        ),
    ]
}
