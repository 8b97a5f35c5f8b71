//! What Avro from outside may cost: memory as the allocator counts it at its peak, and errors that say where. No clock: what would take
//! time without end here takes memory or a row beyond its limit first, and the work of one element is counted in `src/decode`.

use millrace::config::ConnectorConfig;
use millrace::decode::{DecodeOptions, MAX_ROW_BYTES, Plan, avro_columns};
use millrace::record::{NoHeaders, Record, RecordError, RecordErrorClass as Class};
use millrace::schema::parse;
use millrace::table::LayoutHistory;

/// A row that grows to its limit, in a buffer that doubles.
const ROW_PEAK_BYTES: u64 = 3 * MAX_ROW_BYTES as u64;
/// Nothing was made of the data.
const SMALL_BYTES: u64 = 64 * 1024;
/// A schema at every limit at once: texts of 1 MiB, 10,000 columns, 16 MiB of symbols, and the parser's copies of them.
const SCHEMA_PEAK_BYTES: u64 = 192 * 1024 * 1024;

fn options(table: &str) -> DecodeOptions {
    let text = format!("topics = ['t']\n[value]\nformat = 'avro'\n[table]\nname = 'd.t'\n{table}");
    DecodeOptions::new(&toml::from_str::<ConnectorConfig>(&text).unwrap(), false).unwrap()
}

/// A plan for the table that the schema asks for; what is wrong, in words.
fn planned(text: &str, table: &str) -> Result<Plan, String> {
    let (schema, options) = (parse("1".to_owned(), text, &[])?, options(table));
    let columns = avro_columns(&schema, &options).map_err(|e| e.message)?;
    let layout = LayoutHistory::new().include(&columns).map_err(|e| e.to_string())?;
    Plan::avro(&schema, &columns, &layout, None, &options).map_err(|e| e.message)
}

/// The row's length or the error, and the most memory that the decoding held at once.
fn decoded(plan: &Plan, data: &[u8]) -> (Result<usize, RecordError>, u64) {
    let record = Record { topic: "t", partition: 0, offset: 0, timestamp_ms: None, key: None, value: None, headers: &NoHeaders };
    let mut outcome = Ok(0);
    let taken = allocation_counter::measure(|| {
        let mut out = Vec::new();
        outcome = plan.decode(data, &record, 1_760_000_000_000_000, &mut out).map(|()| out.len());
    });
    (outcome, taken.bytes_max)
}

#[track_caller]
fn fails(plan: &Plan, data: &[u8], class: Class, most_bytes: u64) -> RecordError {
    let (outcome, taken) = decoded(plan, data);
    let error = outcome.unwrap_err();
    assert_eq!(error.class, class, "{error}");
    assert!(taken <= most_bytes, "{taken} bytes were taken: {error}");
    error
}

/// Avro's `long`.
fn long(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut out = Vec::new();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn record(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, ty)| format!(r#"{{"name":"{name}","type":{ty}}}"#)).collect();
    format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","))
}

/// Items that take bytes, items that take none and are written, items that take none and are skipped.
const ITEMS: [&str; 5] =
    [r#""long""#, r#""string""#, r#"{"type":"fixed","name":"F","size":0}"#, r#""null""#, r#"{"type":"record","name":"E","fields":[]}"#];

#[test]
fn counts_that_no_data_could_fill() {
    for items in ITEMS {
        let array = format!(r#"{{"type":"array","items":{items}}}"#);
        for table in ["", "columns = { f = { type = 'JSON' } }"] {
            let plan = planned(&record(&[("id", r#""int""#), ("f", &array)]), table).unwrap();
            for count in [1 << 60, i64::MAX, 1 << 40, 1_000_001] {
                let error = fails(&plan, &[long(1), long(count), vec![0; 30]].concat(), Class::InvalidBlock, SMALL_BYTES);
                assert!(error.message.contains("byte 1"), "{error}");
                // With a size, which is a lie as well.
                for size in [0, 8, i64::MAX, -1] {
                    let head = [long(1), long(-count), long(size)].concat();
                    fails(&plan, &[head, vec![0; 30]].concat(), Class::InvalidBlock, SMALL_BYTES);
                }
            }
            fails(&plan, &[long(1), long(i64::MIN), long(3), vec![0; 30]].concat(), Class::InvalidBlock, SMALL_BYTES);
        }
    }
    let plan = planned(&record(&[("f", r#"{"type":"map","values":"null"}"#), ("m", r#"{"type":"map","values":"long"}"#)]), "").unwrap();
    let error = fails(&plan, &[long(1 << 60), vec![0; 30]].concat(), Class::InvalidBlock, SMALL_BYTES);
    assert!(error.message.contains("`f") && error.message.contains("byte 0"), "{error}");
}

#[test]
fn lengths_that_no_data_could_fill() {
    for ty in [r#""bytes""#, r#""string""#, r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}"#] {
        let plan = planned(&record(&[("id", r#""int""#), ("f", ty)]), "").unwrap();
        for (length, class) in [
            (i64::MAX, Class::TruncatedData),
            (1 << 40, Class::TruncatedData),
            (31, Class::TruncatedData),
            (-1, Class::InvalidBlock),
            (i64::MIN, Class::InvalidBlock),
        ] {
            let error = fails(&plan, &[long(1), long(length), vec![b'0'; 30]].concat(), class, SMALL_BYTES);
            assert!(error.message.contains("`f`") && error.message.contains("byte 1"), "{error}");
        }
    }
    let fixed = format!(r#"{{"type":"fixed","name":"F","size":{}}}"#, i64::MAX);
    let plan = planned(&record(&[("f", &fixed), ("a", r#"{"type":"array","items":"F"}"#)]), "").unwrap();
    fails(&plan, &[0; 30], Class::TruncatedData, SMALL_BYTES);
}

#[test]
fn elements_of_no_bytes_end_with_the_row() {
    // A million of them cost four bytes of data each time: what they write is bounded by the row.
    let block = long(1_000_000);
    let data = [long(1), block.repeat(50_000), long(0)].concat();
    let written = record(&[("id", r#""int""#), ("f", r#"{"type":"array","items":{"type":"fixed","name":"F","size":0}}"#)]);
    fails(&planned(&written, "").unwrap(), &data, Class::RowTooLarge, ROW_PEAK_BYTES);
    for items in [r#""null""#, r#"{"type":"record","name":"E","fields":[]}"#] {
        let text = record(&[("id", r#""int""#), ("f", &format!(r#"{{"type":"array","items":{items}}}"#))]);
        fails(&planned(&text, "columns = { f = { type = 'JSON' } }").unwrap(), &data, Class::RowTooLarge, ROW_PEAK_BYTES);
        let (outcome, taken) = decoded(&planned(&text, "").unwrap(), &data);
        assert!(outcome.is_ok_and(|row| row < 16) && taken <= SMALL_BYTES, "{taken} bytes for elements that are only skipped");
    }
}

#[test]
fn huge_blocks_and_many_small_ones() {
    let plan = planned(&record(&[("f", r#"{"type":"array","items":"long"}"#)]), "").unwrap();
    let one = [long(10_000_000), vec![2; 10_000_000], long(0)].concat();
    fails(&plan, &one, Class::RowTooLarge, ROW_PEAK_BYTES);
    let many = [[long(1), long(1)].concat().repeat(3_300_000), long(0)].concat();
    fails(&plan, &many, Class::RowTooLarge, ROW_PEAK_BYTES);
    let fitting = [long(2_000_000), vec![2; 2_000_000], long(0)].concat();
    let (outcome, taken) = decoded(&plan, &fitting);
    assert!(outcome.is_ok_and(|row| row > 2_000_000) && taken <= ROW_PEAK_BYTES, "{taken} bytes");
}

#[test]
fn values_nested_without_end() {
    let tree =
        r#"{"type":"record","name":"Tree","fields":[{"name":"v","type":"int"},{"name":"c","type":{"type":"array","items":"Tree"}}]}"#;
    let refused = planned(tree, "").unwrap_err();
    assert!(refused.contains("`c`") && refused.contains("recursive = \"json\""), "{refused}");
    let plan = planned(tree, "recursive = 'json'").unwrap();
    let nested = [long(1), long(1)].concat().repeat(500_000);
    let error = fails(&plan, &nested, Class::TooDeep, 1 << 20);
    assert!(error.message.contains("`c`") && error.message.contains("500"), "{error}");
    // Within itself always: no data can hold one.
    let endless = r#"{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"r","type":"R"}]}"#;
    fails(&planned(endless, "recursive = 'json'").unwrap(), &[2; 100_000], Class::TooDeep, 1 << 20);
    let twice = r#"{"type":"record","name":"R","fields":[{"name":"v","type":"int"},{"name":"q","type":{"type":"record","name":"Q","fields":[{"name":"a","type":"Q"},{"name":"b","type":"Q"}]}}]}"#;
    fails(&planned(twice, "recursive = 'json'").unwrap(), &[2; 1_000], Class::TooDeep, 1 << 20);
}

/// Texts of about 1 MiB that are as bad as they can be. Each is refused with words that say why, or its plan stays within the bound.
#[test]
fn schemas_that_blow_up() {
    let list = |n: usize, item: &dyn Fn(usize) -> String| (0..n).map(item).collect::<Vec<_>>().join(",");
    let uses = |n: usize, ty: &str| list(n, &|i| format!(r#"{{"name":"f{i}","type":"{ty}"}}"#));
    let fields = |fields: String| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let symbols = list(90_000, &|i| format!("\"S{i}\""));
    let nested = |levels: usize, inner: String| {
        let head: String = (0..levels).map(|i| format!(r#"{{"type":"record","name":"N{i}","fields":[{{"name":"f","type":"#)).collect();
        format!("{head}{inner}{}", "}]}".repeat(levels))
    };
    let cases = [
        (
            "a namespace of 500 KB",
            format!(
                r#"{{"type":"record","name":"R","namespace":"{}","fields":[{}]}}"#,
                "n".repeat(500_000),
                list(15_000, &|i| format!(r#"{{"name":"f{i}","type":"x{i}"}}"#))
            ),
        ),
        (
            "a field's name of 500 KB",
            fields(format!(
                r#"{{"name":"{}","type":{{"type":"record","name":"Q","fields":[{}]}}}}"#,
                "n".repeat(500_000),
                uses(9_000, "int")
            )),
        ),
        (
            "a name of 1 KB on each of many levels",
            nested(30, fields(uses(9_000, "int"))).replace("\"f\"", &format!("\"{}\"", "n".repeat(1_000))),
        ),
        (
            "a doc of 700 KB used 4,000 times",
            fields(format!(
                r#"{{"name":"d","type":{{"type":"record","name":"Q","fields":[{{"name":"a","type":"int","doc":"{}"}}]}}}},{}"#,
                "d".repeat(700_000),
                uses(4_000, "Q")
            )),
        ),
        (
            "an enum of 90,000 symbols used 4,000 times",
            fields(format!(r#"{{"name":"e","type":{{"type":"enum","name":"E","symbols":[{symbols}]}}}},{}"#, uses(4_000, "E"))),
        ),
        (
            "a symbol of 700 KB used 4,000 times",
            fields(format!(
                r#"{{"name":"e","type":{{"type":"enum","name":"E","symbols":["{}"]}}}},{}"#,
                "S".repeat(700_000),
                uses(4_000, "E")
            )),
        ),
        ("an enum of 90,000 symbols under 25 records", nested(25, format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]}}"#))),
        ("9,900 fields under 25 records", nested(25, fields(uses(9_900, "int")))),
        (
            "a doc of 900 KB under 25 records",
            nested(25, format!(r#"{{"type":"record","name":"R","doc":"{}","fields":[{}]}}"#, "d".repeat(900_000), uses(3, "int"))),
        ),
        ("15,000 records", fields(list(15_000, &|i| format!(r#"{{"name":"f{i}","type":{{"type":"record","name":"N{i}","fields":[]}}}}"#)))),
        (
            "a default of 900 KB",
            fields(format!(r#"{{"name":"a","type":{{"type":"array","items":"int"}},"default":[{}]}}"#, vec!["1"; 400_000].join(","))),
        ),
        ("an attribute of 900 KB", fields(format!(r#"{{"name":"a","type":{{"type":"int","more":[{}]}}}}"#, vec!["{}"; 300_000].join(",")))),
        ("brackets", "[".repeat(1_000_000)),
    ];
    for (what, text) in cases {
        assert!(text.len() <= 1 << 20, "{what}: {} bytes", text.len());
        let mut outcome = Ok(0);
        let taken = allocation_counter::measure(|| outcome = planned(&text, "").map(|plan| plan.size_bytes()));
        eprintln!("{what}: {} MiB, {:?}", taken.bytes_max >> 20, outcome.as_ref().map_err(|e| e.chars().take(100).collect::<String>()));
        assert!(taken.bytes_max <= SCHEMA_PEAK_BYTES, "{what}: {} MiB", taken.bytes_max >> 20);
        if let Err(error) = outcome {
            assert!(!error.is_empty() && error.len() < 4_000, "{what}: {} bytes of words", error.len());
        }
    }
}
