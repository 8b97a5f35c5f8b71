//! A schema's text to a plan, and bytes through it.
//!
//! Input: a byte of options, then either a schema's text, a zero byte and a record's data; or, with the byte's highest bit, only the data:
//! the byte's other bits choose one of the schemas beside this file.

mod agreement;

use std::cell::RefCell;

use millrace::config::ConnectorConfig;
use millrace::decode::{AvroSchema, DecodeOptions, MAX_ROW_BYTES, Plan, RowBuffer, RowOrigin, avro_columns, row_to_json};
use millrace::record::{NoHeaders, Record};
use millrace::schema::parse;
use millrace::table::{ColumnType, LayoutHistory, SharedLayout};

const NOW_US: i64 = 1_760_000_000_000_000;
const SCHEMAS: [&str; 3] =
    [include_str!("../../schemas/SMSPhysicalStockUpdates_values.avsc"), include_str!("every_type.avsc"), include_str!("tree.avsc")];

/// A plan, the layout of its rows and the schema that both are of.
type Made = (Plan, SharedLayout, AvroSchema);

thread_local! {
    static OPTIONS: [DecodeOptions; 16] = std::array::from_fn(|bits| options(bits as u8));
    static PLANS: RefCell<[Option<Made>; SCHEMAS.len()]> = const { RefCell::new([const { None }; SCHEMAS.len()]) };
}

/// What no input may break: no panic, the buffer as it was after an error, rows within their limit, memory within a multiple of it, and
/// values that are what another reader of Avro makes of the same bytes.
pub fn run(input: &[u8]) {
    let Some((&head, rest)) = input.split_first() else { return };
    if head >= 0x80 {
        let which = usize::from(head & 0x7f) % SCHEMAS.len();
        return PLANS.with_borrow_mut(|plans| {
            let made = plans[which].get_or_insert_with(|| {
                let schema = parse("1".to_owned(), SCHEMAS[which], &[]).expect("the schemas beside this file are good");
                OPTIONS.with(|options| made(&schema, &options[5], false)).expect("and can be mapped")
            });
            decode(made, rest);
        });
    }
    let (text, data) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len()));
    let Ok(text) = std::str::from_utf8(text) else { return };
    match parse("1".to_owned(), text, &[]) {
        Ok(schema) => {
            if let Some(made) = OPTIONS.with(|options| made(&schema, &options[usize::from(head & 15)], head & 64 != 0)) {
                decode(&made, data.get(1..).unwrap_or_default());
            }
        }
        Err(error) => assert!(!error.is_empty(), "an error says nothing"),
    }
}

/// The options of the byte's four lowest bits; every metadata column.
fn options(bits: u8) -> DecodeOptions {
    let either = |bit: u8, set: &'static str, unset: &'static str| if bits & bit != 0 { set } else { unset };
    let text = format!(
        "topics = ['t']\n[value]\nformat = 'avro'\n[table]\nname = 'd.t'\nrecursive = '{}'\nunions = '{}'\nrepeated_null = '{}'\n\
         metadata = ['topic', 'partition', 'offset', 'timestamp', 'key', 'headers', 'schema_id', 'ingested_at']",
        either(1, "json", "refuse"),
        either(2, "json", "record"),
        either(4, "wrap", "refuse"),
    );
    let config: ConnectorConfig = toml::from_str(&text).expect("a connector's file");
    DecodeOptions::new(&config, bits & 8 != 0).expect("options")
}

/// The plan for the table that the schema itself asks for.
fn made(schema: &AvroSchema, options: &DecodeOptions, partitioned: bool) -> Option<Made> {
    let columns = match avro_columns(schema, options) {
        Ok(columns) => columns,
        Err(error) => {
            assert!(!error.message.is_empty(), "an error says nothing");
            return None;
        }
    };
    let layout = LayoutHistory::with_text_literals(options.text_literals).include(&columns).ok()?;
    let dated = |ty: &ColumnType| matches!(ty, ColumnType::Timestamp | ColumnType::Date | ColumnType::DateTime);
    let partition = columns.iter().find(|column| dated(&column.ty)).map(|column| column.name.clone()).filter(|_| partitioned);
    let plan = Plan::avro(schema, &columns, &layout, partition.as_deref(), options);
    Some((plan.expect("a schema's own columns take its records"), layout, schema.clone()))
}

fn decode((plan, layout, schema): &Made, data: &[u8]) {
    let record =
        Record { topic: "t", partition: 3, offset: 7, timestamp_ms: Some(1_000), key: Some(b"k"), value: None, headers: &NoHeaders };
    let mut out = b"before".to_vec();
    let outcome = plan.decode(data, &record, NOW_US, &mut out);
    assert!(out.starts_with(b"before"));
    assert!(out.capacity() <= 3 * MAX_ROW_BYTES + 4 * data.len(), "{} bytes for {} of data", out.capacity(), data.len());
    let mut rows = RowBuffer::new(layout.clone());
    let pushed = rows.push(plan, data, &record, NOW_US, RowOrigin { slot: 0, offset: 7 });
    match outcome {
        Ok(()) => {
            let row = &out[6..];
            assert!(row.len() <= MAX_ROW_BYTES);
            assert_eq!(pushed, Ok(rows.len_bytes()));
            let closed = rows.close();
            assert!(closed.rows.ends_with(row), "a row in a buffer is another one than alone");
            if row.len() < 1 << 16 {
                let shown = row_to_json(layout, row);
                assert!(shown.starts_with('{'));
                agreement::check(&schema.root, layout, data, &shown);
            }
        }
        Err(error) => {
            assert_eq!(out, b"before", "an error leaves something behind");
            assert!(!error.message.is_empty());
            assert_eq!(pushed, Err(error));
            assert_eq!((rows.len_rows(), rows.len_bytes()), (0, 0), "an error leaves something behind");
        }
    }
}
