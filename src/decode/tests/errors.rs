//! Each thing that can be wrong with a record has its class, names its field, and leaves nothing behind.

use super::*;
use crate::record::RecordErrorClass as Class;
use crate::table::{ColumnType, Mode};

fn fails(ty: &str, payload: &[u8]) -> RecordError {
    shown(&own_plan(&field_schema(ty), &options("")).unwrap(), payload).unwrap_err()
}

#[track_caller]
fn is(ty: &str, payload: &[u8], class: Class) {
    let error = fails(ty, payload);
    assert_eq!(error.class, class, "{error}");
    assert!(class == Class::OverlongData || error.message.contains("`f"), "{error}");
    assert!(error.message.contains("byte "), "{error}");
}

fn logical(base: &str, logical: &str) -> String {
    format!(r#"{{"type":"{base}","logicalType":"{logical}"}}"#)
}

#[test]
fn malformed_data() {
    is(r#""int""#, &[], Class::TruncatedData);
    is(r#""string""#, &[8, b'a'], Class::TruncatedData);
    is(r#""double""#, &[0; 7], Class::TruncatedData);
    is(r#""int""#, &[2, 0], Class::OverlongData);
    is(r#""long""#, &[0xff; 11], Class::MalformedVarint);
    is(r#""int""#, &long(1 << 31), Class::IntOutOfRange);
    is(r#""boolean""#, &[2], Class::InvalidBoolean);
    is(r#"["null","int"]"#, &long(2), Class::UnionIndexOutOfRange);
    is(r#"["null","int","string"]"#, &long(3), Class::UnionIndexOutOfRange);
    is(r#"["null","int"]"#, &long(-1), Class::UnionIndexOutOfRange);
    is(r#"{"type":"enum","name":"E","symbols":["A"]}"#, &long(1), Class::EnumIndexOutOfRange);
    is(r#""string""#, &bytes([0xc3]), Class::InvalidUtf8);
    let behind = [bytes([b'a', 0xff, b'c']), vec![0; 40]].concat();
    is(r#""string""#, &behind, Class::InvalidUtf8);
    is(&logical("string", "uuid"), &bytes("no"), Class::InvalidUuid);
    is(r#"{"type":"array","items":["null","int"]}"#, &[long(1), long(0), long(0)].concat(), Class::NullInRepeated);
}

#[test]
fn hostile_counts_cost_nothing() {
    for items in [r#""int""#, r#"{"type":"record","name":"E","fields":[]}"#, r#"{"type":"fixed","name":"F","size":0}"#, r#"["null","int"]"#]
    {
        let schema = schema(&format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":"int"}},{{"name":"f","type":{{"type":"array","items":{items}}}}}]}}"#
        ));
        let plan = own_plan(&schema, &options("")).unwrap();
        for count in [i64::MAX, i64::MIN + 1, 1 << 40, -(1 << 40)] {
            let error = shown(&plan, &[long(1), long(count), long(1), vec![0; 20]].concat()).unwrap_err();
            assert_eq!(error.class, Class::InvalidBlock, "{items} {count}: {error}");
        }
    }
    is(r#"{"type":"map","values":"int"}"#, &[long(1 << 50), vec![0; 9]].concat(), Class::InvalidBlock);
    is(r#"{"type":"array","items":"int"}"#, &[long(-1), long(5), long(1), long(0), vec![0; 9]].concat(), Class::InvalidBlock);
}

#[test]
fn values_beyond_bigquerys_ranges() {
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}"#;
    is(decimal, &bytes([0x7f; 17]), Class::ValueOutOfRange);
    is(&logical("int", "date"), &long(2_932_897), Class::ValueOutOfRange);
    is(&logical("int", "time-millis"), &long(86_400_000), Class::ValueOutOfRange);
    is(&logical("int", "time-millis"), &long(-1), Class::ValueOutOfRange);
    is(&logical("long", "timestamp-millis"), &long(i64::MAX), Class::ValueOutOfRange);
    is(&logical("long", "timestamp-micros"), &long(253_402_300_800_000_000), Class::ValueOutOfRange);
    is(&logical("long", "local-timestamp-micros"), &long(i64::MIN), Class::ValueOutOfRange);
    let fine = own_plan(&field_schema(&logical("bytes", "big-decimal")), &options("")).unwrap();
    assert_eq!(shown(&fine, &bytes([bytes([1]), long(39)].concat())).unwrap_err().class, Class::InvalidDecimal);
    assert_eq!(shown(&fine, &bytes([7])).unwrap_err().class, Class::InvalidDecimal);
}

#[test]
fn the_columns_own_bounds() {
    let into = |ty: &str, column: ColumnType, mode: Mode, payload: &[u8]| {
        let schema = field_schema(ty);
        let table = [Column { name: "F".to_owned(), ty: column, mode, description: None }];
        shown(&plan_into(&schema, &table, &options("")).unwrap(), payload).map_err(|e| e.class)
    };
    let text = ColumnType::String(Some(2));
    assert!(into(r#""string""#, text.clone(), Mode::Nullable, &bytes("üü")).is_ok(), "code points, not bytes");
    assert_eq!(into(r#""string""#, text, Mode::Nullable, &bytes("abc")), Err(Class::ValueOutOfRange));
    assert_eq!(into(r#""bytes""#, ColumnType::Bytes(Some(1)), Mode::Nullable, &bytes("ab")), Err(Class::ValueOutOfRange));
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":3}"#;
    let narrow = ColumnType::Numeric(Some((4, 2)));
    assert!(into(decimal, narrow.clone(), Mode::Nullable, &bytes([10])).is_ok());
    assert_eq!(into(decimal, narrow.clone(), Mode::Nullable, &bytes([11])), Err(Class::InvalidDecimal), "nothing is rounded");
    assert_eq!(into(decimal, narrow, Mode::Nullable, &bytes([0x7f, 0xff, 0xff])), Err(Class::ValueOutOfRange));
    assert_eq!(into(r#"["null","int"]"#, ColumnType::Int64, Mode::Required, &long(0)), Err(Class::MissingRequired));
}

#[test]
fn a_partition_date_outside_what_streaming_takes() {
    let schema = field_schema(&logical("long", "timestamp-millis"));
    let columns = avro_columns(&schema, &options("")).unwrap();
    let layout = LayoutHistory::new().include(&columns).unwrap();
    let plan = Plan::avro(&schema, &columns, &layout, Some("F"), &options("")).unwrap();
    let at = |ms: i64| plan.decode(&long(ms), &record(), NOW_US, &mut Vec::new()).map_err(|e| e.class);
    let (now, day) = (NOW_US / 1_000, 86_400_000);
    assert_eq!((at(now), at(now - 3_649 * day), at(now + 364 * day)), (Ok(()), Ok(()), Ok(())));
    assert_eq!(at(now - 3_651 * day), Err(Class::PartitionOutOfRange));
    assert_eq!(at(now + 366 * day), Err(Class::PartitionOutOfRange));
}

#[test]
fn a_row_larger_than_an_append() {
    let plan = own_plan(&field_schema(r#""string""#), &options("")).unwrap();
    let error = shown(&plan, &bytes(vec![b'a'; MAX_ROW_BYTES])).unwrap_err();
    assert_eq!(error.class, Class::RowTooLarge, "{error}");
    assert!(shown(&plan, &bytes(vec![b'a'; MAX_ROW_BYTES - 16])).is_ok());
}

#[test]
fn errors_name_nested_fields_and_no_values() {
    let ty = r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"flag","type":"boolean"}]}}"#;
    let error = fails(ty, &[long(1), vec![77], long(0)].concat());
    assert!(error.message.contains("`f.flag`") && error.message.contains("byte 1") && !error.message.contains("77"), "{error}");
}
