//! Random schemas and values: apache-avro encodes them, the plan decodes them, and an independent slow way says what the row must be
//! (values put by column name into a prost-reflect message of the layout's own descriptor). Mutated bytes must never panic.

use apache_avro::Schema;
use apache_avro::types::Value;
use chrono::{Datelike, Timelike};
use num_bigint::BigInt;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value as Proto};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value as Json, json};

use super::*;
use crate::table::Layout;

const LOGICAL: [(&str, &str); 9] = [
    ("int", "date"),
    ("int", "time-millis"),
    ("long", "time-micros"),
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-millis"),
    ("long", "local-timestamp-micros"),
    ("string", "uuid"),
];

/// A random type as JSON; `names` counts the named ones. No array directly within an array.
fn random_type(rng: &mut StdRng, depth: u32, names: &mut u32, repeatable: bool) -> Json {
    let mut named = |rng: &mut StdRng| {
        *names += 1;
        format!("{}{names}", ["R", "x_", "Z"][rng.random_range(0..3)])
    };
    let kinds = if depth == 0 { 6 } else { 10 };
    match rng.random_range(0..kinds) {
        0 => json!(["boolean", "int", "long", "float", "double", "bytes", "string"][rng.random_range(0..7)]),
        1 => {
            let (base, logical) = LOGICAL[rng.random_range(0..LOGICAL.len())];
            json!({"type": base, "logicalType": logical})
        }
        2 => json!({"type": "enum", "name": named(rng), "symbols": ["A", "B", "LONGER_SYMBOL"]}),
        3 => json!({"type": "fixed", "name": named(rng), "size": rng.random_range(0..40)}),
        4 => json!({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": rng.random_range(0..10)}),
        5 => json!("string"),
        6 if repeatable => json!({"type": "array", "items": random_type(rng, depth - 1, names, false)}),
        7 if repeatable => json!({"type": "map", "values": optional(rng, depth - 1, names)}),
        _ => {
            let name = named(rng);
            let fields: Vec<Json> =
                (0..rng.random_range(1..5)).map(|i| json!({"name": format!("f{i}"), "type": optional(rng, depth - 1, names)})).collect();
            json!({"type": "record", "name": name, "fields": fields})
        }
    }
}

fn optional(rng: &mut StdRng, depth: u32, names: &mut u32) -> Json {
    let inner = random_type(rng, depth, names, true);
    match rng.random_range(0..4) {
        0 => json!(["null", inner]),
        1 => json!([inner, "null"]),
        2 if inner.is_string() && inner != "string" && inner != "int" => json!(["null", inner, "string", "int"]),
        _ => inner,
    }
}

fn random_text(rng: &mut StdRng) -> String {
    let most = [0, 3, 20, 33, 200][rng.random_range(0..5)];
    (0..rng.random_range(0..=most)).map(|_| if rng.random_bool(0.1) { 'ß' } else { rng.random_range('a'..='z') }).collect()
}

fn random_bits(rng: &mut StdRng) -> i64 {
    rng.random::<i64>() >> rng.random_range(0..64)
}

fn random_value(rng: &mut StdRng, schema: &Schema) -> Value {
    match schema {
        Schema::Null => Value::Null,
        Schema::Boolean => Value::Boolean(rng.random()),
        Schema::Int => Value::Int(random_bits(rng) as i32),
        Schema::Long => Value::Long(random_bits(rng)),
        Schema::Float => Value::Float(rng.random()),
        Schema::Double => Value::Double(rng.random()),
        Schema::Bytes => Value::Bytes(random_text(rng).into_bytes()),
        Schema::String => Value::String(random_text(rng)),
        Schema::Fixed(fixed) => Value::Fixed(fixed.size, (0..fixed.size).map(|_| rng.random()).collect()),
        Schema::Enum(symbols) => {
            let i = rng.random_range(0..symbols.symbols.len());
            Value::Enum(i as u32, symbols.symbols[i].clone())
        }
        Schema::Decimal(_) => Value::Decimal(BigInt::from(random_bits(rng)).to_signed_bytes_be().into()),
        Schema::Date => Value::Date(rng.random_range(-719_162..=2_932_896)),
        Schema::TimeMillis => Value::TimeMillis(rng.random_range(0..86_400_000)),
        Schema::TimeMicros => Value::TimeMicros(rng.random_range(0..86_400_000_000)),
        Schema::TimestampMillis => Value::TimestampMillis(rng.random_range(-62_135_596_800_000..=253_402_300_799_999)),
        Schema::TimestampMicros => Value::TimestampMicros(rng.random_range(-62_135_596_800_000_000..=253_402_300_799_999_999)),
        Schema::TimestampNanos => Value::TimestampNanos(rng.random()),
        Schema::LocalTimestampMillis => Value::LocalTimestampMillis(rng.random_range(-62_135_596_800_000..=253_402_300_799_999)),
        Schema::LocalTimestampMicros => Value::LocalTimestampMicros(rng.random_range(-62_135_596_800_000_000..=253_402_300_799_999_999)),
        Schema::Uuid(_) => Value::Uuid(apache_avro::Uuid::from_u128(rng.random())),
        Schema::Record(record) => Value::Record(record.fields.iter().map(|f| (f.name.clone(), random_value(rng, &f.schema))).collect()),
        Schema::Array(array) => Value::Array((0..rng.random_range(0..5)).map(|_| random_value(rng, &array.items)).collect()),
        // One entry at most: the order of several is not the value's.
        Schema::Map(map) => Value::Map((0..rng.random_range(0..2)).map(|_| (random_text(rng), random_value(rng, &map.types))).collect()),
        Schema::Union(union) => {
            let i = rng.random_range(0..union.variants().len());
            Value::Union(i as u32, Box::new(random_value(rng, &union.variants()[i])))
        }
        other => panic!("not generated: {other:?}"),
    }
}

fn packed_time(time: chrono::NaiveTime) -> i64 {
    i64::from(time.hour()) << 32 | i64::from(time.minute()) << 26 | i64::from(time.second()) << 20 | i64::from(time.nanosecond() / 1_000)
}

fn time_of(micros: i64) -> chrono::NaiveTime {
    chrono::NaiveTime::from_num_seconds_from_midnight_opt((micros / 1_000_000) as u32, (micros % 1_000_000 * 1_000) as u32).unwrap()
}

fn packed_datetime(micros: i64) -> i64 {
    let at = chrono::DateTime::from_timestamp_micros(micros).unwrap().naive_utc();
    i64::from(at.year()) << 46 | i64::from(at.month()) << 42 | i64::from(at.day()) << 37 | packed_time(at.time())
}

/// The value of a column that is neither null nor repeated.
fn expected(schema: &Schema, value: &Value, message: Option<&MessageDescriptor>) -> Proto {
    let bytes = |b: &[u8]| Proto::Bytes(b.to_vec().into());
    match (schema, value) {
        (_, Value::Boolean(b)) => Proto::Bool(*b),
        (_, Value::Int(n)) => Proto::I64(i64::from(*n)),
        (_, Value::Long(n)) => Proto::I64(*n),
        (_, Value::Float(f)) => Proto::F64(f64::from(*f)),
        (_, Value::Double(f)) => Proto::F64(*f),
        (_, Value::Bytes(b) | Value::Fixed(_, b)) => bytes(b),
        (_, Value::String(s) | Value::Enum(_, s)) => Proto::String(s.clone()),
        (Schema::Decimal(decimal), Value::Decimal(d)) => {
            let unscaled = BigInt::from_signed_bytes_be(&<Vec<u8>>::try_from(d).unwrap());
            bytes(&(unscaled * BigInt::from(10).pow(9 - decimal.scale as u32)).to_signed_bytes_le())
        }
        (_, Value::Date(d)) => Proto::I32(*d),
        (_, Value::TimeMillis(t)) => Proto::I64(packed_time(time_of(i64::from(*t) * 1_000))),
        (_, Value::TimeMicros(t)) => Proto::I64(packed_time(time_of(*t))),
        (_, Value::TimestampMillis(t)) => Proto::I64(t * 1_000),
        (_, Value::TimestampMicros(t)) => Proto::I64(*t),
        (_, Value::TimestampNanos(t)) => Proto::I64(t.div_euclid(1_000)),
        (_, Value::LocalTimestampMillis(t)) => Proto::I64(packed_datetime(t * 1_000)),
        (_, Value::LocalTimestampMicros(t)) => Proto::I64(packed_datetime(*t)),
        (_, Value::Uuid(u)) => Proto::String(u.to_string()),
        (Schema::Record(record), Value::Record(fields)) => {
            let mut inner = DynamicMessage::new(message.unwrap().clone());
            for (field, (name, value)) in record.fields.iter().zip(fields) {
                set(&mut inner, name, &field.schema, value);
            }
            Proto::Message(inner)
        }
        // A union of several types: one field, named by the branch.
        (Schema::Union(union), Value::Union(branch, value)) => {
            let mut inner = DynamicMessage::new(message.unwrap().clone());
            let branch = &union.variants()[*branch as usize];
            let name = match branch {
                Schema::Boolean => "boolean",
                Schema::Int => "int",
                Schema::Long => "long",
                Schema::Float => "float",
                Schema::Double => "double",
                Schema::Bytes => "bytes",
                Schema::String => "string",
                other => panic!("{other:?}"),
            };
            set(&mut inner, name, branch, value);
            Proto::Message(inner)
        }
        other => panic!("{other:?}"),
    }
}

fn set(message: &mut DynamicMessage, name: &str, schema: &Schema, value: &Value) {
    match (schema, value) {
        (_, Value::Null) => return,
        (_, Value::Union(_, inner)) if **inner == Value::Null => return,
        (Schema::Union(union), Value::Union(branch, inner)) if union.variants().len() == 2 => {
            return set(message, name, &union.variants()[*branch as usize], inner);
        }
        _ => {}
    }
    let field = message.descriptor().get_field_by_name(name).unwrap_or_else(|| panic!("no field {name}"));
    let kind = field.kind();
    let inner = kind.as_message();
    let value = match (schema, value) {
        (Schema::Array(array), Value::Array(items)) => Proto::List(items.iter().map(|i| expected(&array.items, i, inner)).collect()),
        (Schema::Map(map), Value::Map(entries)) => Proto::List(
            entries
                .iter()
                .map(|(key, value)| {
                    let mut entry = DynamicMessage::new(inner.unwrap().clone());
                    set(&mut entry, "key", &Schema::String, &Value::String(key.clone()));
                    set(&mut entry, "value", &map.types, value);
                    Proto::Message(entry)
                })
                .collect(),
        ),
        _ => expected(schema, value, inner),
    };
    message.set_field(&field, value);
}

fn descriptor(layout: &Layout) -> MessageDescriptor {
    let file = prost_types::FileDescriptorProto {
        name: Some("row.proto".to_owned()),
        message_type: vec![prost_types::DescriptorProto::decode(layout.descriptor.clone()).unwrap()],
        ..Default::default()
    };
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    pool.get_message_by_name("Row").unwrap()
}

struct Case {
    schema: AvroSchema,
    value: Value,
    payload: Vec<u8>,
    plan: Plan,
    layout: SharedLayout,
}

fn case(seed: u64) -> Case {
    let mut rng = StdRng::seed_from_u64(seed);
    let (rng, names) = (&mut rng, &mut 0);
    let fields: Vec<Json> =
        (0..rng.random_range(1..8)).map(|i| json!({"name": format!("c{i}"), "type": optional(rng, 3, names)})).collect();
    let text = json!({"type": "record", "name": "Top", "fields": fields}).to_string();
    let schema = schema(&text);
    let value = random_value(rng, &schema.root);
    let payload =
        apache_avro::writer::datum::GenericDatumWriter::builder(&schema.root).build().unwrap().write_value_to_vec(value.clone()).unwrap();
    let (plan, layout) = own_plan(&schema, &options("")).unwrap();
    Case { schema, value, payload, plan, layout }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn the_plan_agrees_with_the_slow_way(seed: u64) {
        let case = case(seed);
        let mut row = Vec::new();
        case.plan.decode(&case.payload, &record(), NOW_US, &mut row).unwrap();
        let message = descriptor(&case.layout);
        let got = DynamicMessage::decode(message.clone(), row.as_slice()).unwrap();
        prop_assert_eq!(got.unknown_fields().count(), 0);
        let Proto::Message(expected) = expected(&case.schema.root, &case.value, Some(&message)) else { panic!("a message") };
        // By way of bytes: an empty list that was set is the same as one that was not.
        let expected = DynamicMessage::decode(message, expected.encode_to_vec().as_slice()).unwrap();
        prop_assert!(got == expected, "schema {:?}\nvalue {:?}\nplan {}\nslow {}", case.schema.root, case.value, got, expected);
    }

    #[test]
    fn damaged_data_never_panics_and_never_grows(seed: u64, cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8, extra in prop::collection::vec(any::<u8>(), 0..20)) {
        let case = case(seed);
        let mut row = Vec::new();
        let mut try_one = |payload: &[u8]| {
            row.clear();
            if case.plan.decode(payload, &record(), NOW_US, &mut row).is_ok() {
                // What is taken for good is a row that the descriptor describes.
                assert!(DynamicMessage::decode(descriptor(&case.layout), row.as_slice()).is_ok());
            }
            assert!(row.len() <= MAX_ROW_BYTES);
        };
        if !case.payload.is_empty() {
            try_one(&case.payload[..cut.index(case.payload.len())]);
            let mut changed = case.payload.clone();
            changed[at.index(case.payload.len())] = byte;
            try_one(&changed);
        }
        try_one(&extra);
        let longer: Vec<u8> = case.payload.iter().copied().chain(extra.iter().copied()).collect();
        try_one(&longer);
        if !extra.is_empty() {
            prop_assert!(case.plan.decode(&longer, &record(), NOW_US, &mut row).is_err(), "data behind the record");
        }
    }
}
