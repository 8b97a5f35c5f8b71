//! A JSON object to a row by the table's columns.
//!
//! Input: a byte that chooses the table (its lowest bit: values that travel as text), then the record's value.

use millrace::config::ConnectorConfig;
use millrace::decode::{DecodeOptions, MAX_ROW_BYTES, Plan, row_to_json};
use millrace::record::{NoHeaders, Record};
use millrace::table::{Column, ColumnType, LayoutHistory, Mode, SharedLayout};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

const NOW_US: i64 = 1_760_000_000_000_000;

thread_local! {
    static PLANS: [(Plan, SharedLayout); 4] = std::array::from_fn(|bits| plan(bits & 1 != 0, bits & 2 != 0));
}

/// What no input may break: no panic, the buffer as it was after an error, a row only of what is a JSON object and with its values,
/// memory within a multiple of the value.
pub fn run(input: &[u8]) {
    let Some((&head, data)) = input.split_first() else { return };
    PLANS.with(|plans| {
        let (plan, layout) = &plans[usize::from(head & 3)];
        let record = Record { topic: "t", partition: 3, offset: 7, timestamp_ms: None, key: None, value: Some(data), headers: &NoHeaders };
        let mut out = b"before".to_vec();
        let outcome = plan.decode(data, &record, NOW_US, &mut out);
        assert!(out.starts_with(b"before"));
        assert!(out.capacity() <= 16 * data.len() + 4_096, "{} bytes for {} of data", out.capacity(), data.len());
        match outcome {
            Ok(()) => {
                assert!(out.len() - 6 <= MAX_ROW_BYTES);
                let text = serde_json::from_slice::<&RawValue>(data).expect("a row of what is no JSON").get();
                assert!(text.starts_with('{'), "a row of what is no object");
                agree(text, &row_to_json(layout, &out[6..]));
            }
            Err(error) => {
                assert_eq!(out, b"before", "an error leaves something behind");
                assert!(!error.message.is_empty() && error.message.len() < 2_500, "{error}");
            }
        }
    });
}

/// Whether the row holds what serde_json reads of the same text, as far as a value can be compared as it stands, and nothing else.
fn agree(given: &str, row: &str) {
    // A JSON column takes what is nested deeper than serde_json builds values: there only the row's text is there to see.
    let object = |text| serde_json::from_str::<Map<String, Json>>(text);
    let Ok(given) = object(given) else { return assert!(row.starts_with('{')) };
    let row = object(row).expect("a row is shown as JSON");
    for (key, value) in &given {
        // BigQuery's names ignore case; keys that no column has are left out.
        let name = key.to_lowercase();
        let shown = row.get(&name).unwrap_or(&Json::Null);
        let (single, list) = name.strip_suffix("_s").map_or((name.as_str(), false), |single| (single, true));
        let same = match (value, shown) {
            (Json::Array(given), Json::Array(shown)) if list => {
                given.len() == shown.len() && given.iter().zip(shown).all(|(given, shown)| same(single, given, shown))
            }
            _ => list || same(single, value, shown),
        };
        assert!(same, "{key}: {value} became {shown}");
    }
    for name in row.keys() {
        assert!(given.keys().any(|key| key.to_lowercase() == *name), "the row has {name}, the value has not");
    }
}

fn same(column: &str, given: &Json, shown: &Json) -> bool {
    match (column, given) {
        ("bool", Json::Bool(_)) | ("text", Json::String(_)) => given == shown,
        ("bool" | "text" | "int" | "float" | "ts", Json::Null) => shown.is_null(),
        ("int", Json::Number(number)) if number.is_i64() => given == shown,
        ("float", Json::Number(number)) => {
            let (Some(given), Some(shown)) = (number.as_f64(), shown.as_f64()) else { return false };
            // serde_json is a digit off now and then, the row is not.
            (given - shown).abs() <= given.abs() * 1e-15 + f64::MIN_POSITIVE
        }
        _ => true,
    }
}

/// A table with a column of every type; `strict` makes some of them REQUIRED and partitions it.
fn plan(text_literals: bool, strict: bool) -> (Plan, SharedLayout) {
    let text = "topics = ['t']\n[value]\nformat = 'json'\n[table]\nname = 'd.t'\n[table.columns]\nts = { unit = 'ms' }\ndate = { unit = 'd' }\nlocal = { unit = 'us' }";
    let config: ConnectorConfig = toml::from_str(text).expect("a connector's file");
    let options = DecodeOptions::new(&config, text_literals).expect("options");
    let column = |name: &str, ty, mode| Column { name: name.to_owned(), ty, mode, description: None };
    let types = [
        ("bool", "BOOL"),
        ("int", "INT64"),
        ("float", "FLOAT64"),
        ("dec", "NUMERIC(20, 4)"),
        ("big", "BIGNUMERIC"),
        ("text", "STRING"),
        ("short", "STRING(3)"),
        ("bytes", "BYTES(9)"),
        ("date", "DATE"),
        ("time", "TIME"),
        ("local", "DATETIME"),
        ("ts", "TIMESTAMP"),
        ("json", "JSON"),
        ("place", "GEOGRAPHY"),
        ("span", "INTERVAL"),
        ("range", "RANGE<DATE>"),
    ];
    let required = |name: &str| if strict && matches!(name, "int" | "ts" | "dec") { Mode::Required } else { Mode::Nullable };
    let ty = |ty: &str| ty.parse::<ColumnType>().expect("a type");
    let scalars = || types.map(|(name, of)| column(name, ty(of), required(name)));
    let inner: Vec<Column> =
        scalars().into_iter().chain([column("again", ColumnType::Struct(scalars().to_vec()), Mode::Repeated)]).collect();
    let mut columns = scalars().to_vec();
    columns.extend(types.map(|(name, of)| column(&format!("{name}_s"), ty(of), Mode::Repeated)));
    columns.push(column("rec", ColumnType::Struct(inner.clone()), Mode::Nullable));
    columns.push(column("recs", ColumnType::Struct(inner), Mode::Repeated));
    let layout = LayoutHistory::with_text_literals(text_literals).include(&columns).expect("a layout");
    (Plan::json(&columns, &layout, strict.then_some("ts"), &options).expect("a plan"), layout)
}
