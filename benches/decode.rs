//! Avro to row bytes, one core: the compiled plan against apache-avro's `Value` route to the same bytes, in the same run.
//!
//! `cargo bench --bench decode`. Stock updates with random data; the outputs are compared byte by byte before anything is timed. Prints the
//! median of the rounds, in CPU time of the one thread (so that a busy machine does not count). Exit code 1 when a goal of the issue is
//! missed: 8 M records/s and 8 times the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use apache_avro::types::Value;
use millrace::config::ConnectorConfig;
use millrace::decode::{AvroSchema, ConnectNames, DecodeOptions, Plan, RowBuffer, RowOrigin, avro_columns, split_rows};
use millrace::record::{NoHeaders, Record};
use millrace::table::LayoutHistory;
use prost::encoding::{int64, string};
use rand::{Rng, SeedableRng};

// The program's own allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const RECORDS: usize = 20_000;
const ROUNDS: usize = 9;
/// Long against a tick of 4 ms.
const ROUND_SECONDS: f64 = 0.3;
const GOAL_RECORDS_PER_S: f64 = 8.0e6;
const GOAL_TIMES_REFERENCE: f64 = 8.0;

const STOCK: &str = r#"{"type":"record","name":"SMSPhysicalStockUpdates_values","namespace":"com.huub.types","fields":[
    {"name":"timestamp","type":"long"},{"name":"process_reference","type":["null","string"]},{"name":"variant_id","type":"int"},
    {"name":"warehouse_id","type":"int"},{"name":"warehouse_name","type":"string"},{"name":"huubclient_id","type":"int"},
    {"name":"ean","type":"string"},{"name":"reference","type":"string"},{"name":"sales_channel_type","type":"string"},
    {"name":"delta","type":"int"},{"name":"stock_after_adjust","type":"int"}]}"#;

#[derive(serde::Deserialize)]
struct Stock<'a> {
    timestamp: i64,
    process_reference: Option<&'a str>,
    variant_id: i32,
    warehouse_id: i32,
    warehouse_name: &'a str,
    huubclient_id: i32,
    ean: &'a str,
    reference: &'a str,
    sales_channel_type: &'a str,
    delta: i32,
    stock_after_adjust: i32,
}

fn random_records(schema: &apache_avro::Schema) -> Vec<Vec<u8>> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let text = |rng: &mut rand_chacha::ChaCha8Rng, least: usize, most: usize| -> Value {
        let len = rng.random_range(least..=most);
        Value::String((0..len).map(|_| rng.sample(rand::distr::Alphanumeric) as char).collect())
    };
    let wide = |rng: &mut rand_chacha::ChaCha8Rng, bits: u32| {
        let bits = rng.random_range(1..=bits);
        Value::Int(rng.random_range(0..1i32 << bits))
    };
    (0..RECORDS)
        .map(|_| {
            let rng = &mut rng;
            let reference = match rng.random_bool(0.5) {
                true => Value::Union(1, Box::new(text(rng, 8, 24))),
                false => Value::Union(0, Box::new(Value::Null)),
            };
            let record = Value::Record(vec![
                ("timestamp".into(), Value::Long(1_760_000_000_000 + rng.random_range(0..10_000_000_000))),
                ("process_reference".into(), reference),
                ("variant_id".into(), wide(rng, 27)),
                ("warehouse_id".into(), wide(rng, 10)),
                ("warehouse_name".into(), text(rng, 4, 20)),
                ("huubclient_id".into(), wide(rng, 14)),
                ("ean".into(), text(rng, 13, 13)),
                ("reference".into(), text(rng, 6, 18)),
                ("sales_channel_type".into(), text(rng, 3, 11)),
                ("delta".into(), Value::Int(rng.random_range(-500..500))),
                ("stock_after_adjust".into(), wide(rng, 16)),
            ]);
            apache_avro::writer::datum::GenericDatumWriter::builder(schema).build().unwrap().write_value_to_vec(record).unwrap()
        })
        .collect()
}

/// The reference's second half: a `Value` to the same proto bytes.
fn value_to_row(value: &Value, out: &mut Vec<u8>) {
    let Value::Record(fields) = value else { panic!("a record") };
    for (i, (_, value)) in fields.iter().enumerate() {
        let number = i as u32 + 1;
        let value = if let Value::Union(_, inner) = value { inner } else { value };
        match value {
            Value::Long(n) => int64::encode(number, n, out),
            Value::Int(n) => int64::encode(number, &i64::from(*n), out),
            Value::String(s) => string::encode(number, s, out),
            Value::Null => {}
            other => panic!("{other:?}"),
        }
    }
}

fn stock_to_row(s: &Stock<'_>, out: &mut Vec<u8>) {
    let text = |number, text: &str, out: &mut Vec<u8>| {
        prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
        prost::encoding::encode_varint(text.len() as u64, out);
        out.extend_from_slice(text.as_bytes());
    };
    int64::encode(1, &s.timestamp, out);
    if let Some(reference) = s.process_reference {
        text(2, reference, out);
    }
    int64::encode(3, &i64::from(s.variant_id), out);
    int64::encode(4, &i64::from(s.warehouse_id), out);
    text(5, s.warehouse_name, out);
    int64::encode(6, &i64::from(s.huubclient_id), out);
    text(7, s.ean, out);
    text(8, s.reference, out);
    text(9, s.sales_channel_type, out);
    int64::encode(10, &i64::from(s.delta), out);
    int64::encode(11, &i64::from(s.stock_after_adjust), out);
}

/// This thread's time on a CPU, from the kernel's own account (nanoseconds, its first field). The account is brought up to date only at a
/// tick (4 ms) or when the thread gives way: so it gives way first, and rounds are long against a tick.
fn cpu_seconds() -> f64 {
    std::thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    account.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

/// CPU seconds of one pass over all records: the mean of as many passes as take [`ROUND_SECONDS`].
fn pass_seconds(mut pass: impl FnMut()) -> f64 {
    let start = cpu_seconds();
    let mut passes = 0;
    loop {
        for _ in 0..8 {
            pass();
        }
        passes += 8;
        let spent = cpu_seconds() - start;
        if spent >= ROUND_SECONDS {
            return spent / f64::from(passes);
        }
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() {
    let schema = AvroSchema {
        id: "1".to_owned(),
        root: apache_avro::Schema::parse_str(STOCK).unwrap(),
        references: Vec::new(),
        connect_names: ConnectNames::default(),
    };
    let connector: ConnectorConfig =
        toml::from_str("topics = [\"stock\"]\n[value]\nformat = \"avro\"\n[table]\nname = \"d.stock\"\n").expect("a connector");
    let options = DecodeOptions::new(&connector, false).unwrap();
    let columns = avro_columns(&schema, &options).unwrap();
    let mut history = LayoutHistory::new();
    let layout = history.include(&columns).unwrap();
    let plan = Plan::avro(&schema, &columns, &layout, None, &options).unwrap();
    let payloads = random_records(&schema.root);
    let bytes: usize = payloads.iter().map(Vec::len).sum();
    let record = Record { topic: "stock", partition: 0, offset: 0, timestamp_ms: None, key: None, value: None, headers: &NoHeaders };
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema.root).build().unwrap();
    let fast: serde_avro_fast::Schema = STOCK.parse().unwrap();

    // The same bytes by all three ways, or nothing is timed.
    let mut buffer = RowBuffer::new(layout.clone());
    for payload in &payloads {
        buffer.push(&plan, payload, &record, 0, RowOrigin { slot: 0, offset: 0 }).unwrap();
    }
    let rows = buffer.close().rows;
    let (mut by_value, mut by_serde) = (Vec::new(), Vec::new());
    for (range, payload) in split_rows(&rows).zip(&payloads) {
        by_value.clear();
        by_serde.clear();
        value_to_row(&reader.read_value(&mut payload.as_slice()).unwrap(), &mut by_value);
        stock_to_row(&serde_avro_fast::from_datum_slice(payload, &fast).unwrap(), &mut by_serde);
        assert_eq!(rows[range], by_value, "the plan's bytes are the reference's");
        assert_eq!(by_serde, by_value, "and serde_avro_fast's");
    }

    let (mut plan_s, mut value_s, mut serde_s) = (Vec::new(), Vec::new(), Vec::new());
    let mut out = Vec::with_capacity(1 << 20);
    // As in a worker: batch after batch from one buffer, each handed over at 1 MiB.
    let mut buffer = RowBuffer::new(layout.clone());
    // In turn, so that all see the same machine.
    for _ in 0..ROUNDS {
        plan_s.push(pass_seconds(|| {
            for (offset, payload) in payloads.iter().enumerate() {
                let origin = RowOrigin { slot: 0, offset: offset as i64 };
                buffer.push(&plan, black_box(payload), &record, 0, origin).unwrap();
                if buffer.len_bytes() > 1 << 20 {
                    black_box(buffer.take(layout.clone()));
                }
            }
        }));
        value_s.push(pass_seconds(|| {
            for payload in &payloads {
                if out.len() > 1 << 20 {
                    out.clear();
                }
                value_to_row(&reader.read_value(&mut black_box(payload.as_slice())).unwrap(), &mut out);
            }
            black_box(&out);
        }));
        serde_s.push(pass_seconds(|| {
            for payload in &payloads {
                if out.len() > 1 << 20 {
                    out.clear();
                }
                stock_to_row(&serde_avro_fast::from_datum_slice(black_box(payload), &fast).unwrap(), &mut out);
            }
            black_box(&out);
        }));
    }
    let rates = |seconds: Vec<f64>| {
        let of = |s: f64| RECORDS as f64 / s;
        let least = seconds.iter().copied().fold(f64::MIN, f64::max);
        let most = seconds.iter().copied().fold(f64::MAX, f64::min);
        (of(median(seconds)), of(least), of(most))
    };
    let (by_plan, by_value, by_serde) = (rates(plan_s), rates(value_s), rates(serde_s));
    let (plan_rate, value_rate) = (by_plan.0, by_value.0);
    let line = |name: &str, (rate, least, most): (f64, f64, f64)| {
        let (mb, times) = (rate * bytes as f64 / RECORDS as f64 / 1e6, rate / value_rate);
        println!("{name:<52} {:>6.2} M records/s ({:.2} to {:.2}) {mb:>5.0} MB/s {times:>5.1} x", rate / 1e6, least / 1e6, most / 1e6);
    };
    println!("stock updates, {RECORDS} random records of {} bytes on average, median of {ROUNDS} rounds", bytes / RECORDS);
    line("apache-avro Value (reader reused), then proto bytes", by_value);
    line("serde_avro_fast typed, then proto bytes", by_serde);
    line("plan into a row buffer", by_plan);
    if plan_rate < GOAL_RECORDS_PER_S || plan_rate < GOAL_TIMES_REFERENCE * value_rate {
        println!("missed: the goal is {:.0} M records/s and {GOAL_TIMES_REFERENCE} x the reference", GOAL_RECORDS_PER_S / 1e6);
        std::process::exit(1);
    }
}
