//! Fields with values, sent end to end and read back: what `types` and `embedded` have in common.

use std::time::Duration;

use anyhow::{Context, ensure};
use apache_avro::Schema;
use apache_avro::types::Value;
use serde_json::{Value as Json, json};

use crate::harness::avro::{encode, framed};
use crate::harness::emulator::Reader;
use crate::harness::installation::{Installation, avro_connector};
use crate::harness::journal::{Outgoing, Producer};
use crate::harness::process::wait_for;
use crate::harness::servers::Servers;

/// The mode of every column that is no array.
pub const NULLABLE: &str = "NULLABLE";

/// One field: its name, its Avro type, its column as `(type, mode)`, and for both rows the value as Avro's physical type and as read back.
pub struct Field {
    name: &'static str,
    avro: Json,
    column: (&'static str, &'static str),
    rows: [(Value, Json); 2],
}

/// One field.
pub fn field(name: &'static str, avro: Json, column: (&'static str, &'static str), rows: [(Value, Json); 2]) -> Field {
    Field { name, avro, column, rows }
}

/// An Avro string.
pub fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

/// A value of a union whose first branch is null.
pub fn optional(inner: Option<Value>) -> Value {
    inner.map_or(Value::Union(0, Box::new(Value::Null)), |inner| Value::Union(1, Box::new(inner)))
}

/// An Avro record.
pub fn record(fields: &[(&str, Value)]) -> Value {
    Value::Record(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

/// A logical type.
pub fn logical(ty: &str, logical: &str) -> Json {
    json!({"type": ty, "logicalType": logical})
}

/// A decimal on bytes.
pub fn decimal(precision: u32, scale: u32) -> Json {
    json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
}

/// Times of day: text for the emulator, packed for the embedded BigQuery.
pub fn times() -> [Field; 2] {
    [
        field(
            "f_time_millis",
            logical("int", "time-millis"),
            ("TIME", NULLABLE),
            [(Value::Int(3_723_004), json!("01:02:03.004000")), (Value::Int(0), json!("00:00:00"))],
        ),
        field(
            "f_time_micros",
            logical("long", "time-micros"),
            ("TIME", NULLABLE),
            [(Value::Long(86_399_999_999), json!("23:59:59.999999")), (Value::Long(1), json!("00:00:00.000001"))],
        ),
    ]
}

/// The schema without logical types: by it the physical values are encoded.
fn physical(schema: &Json) -> Json {
    match schema {
        Json::Object(map) => {
            map.iter().filter(|(key, _)| *key != "logicalType").map(|(key, value)| (key.clone(), physical(value))).collect()
        }
        Json::Array(items) => items.iter().map(physical).collect(),
        other => other.clone(),
    }
}

/// Sends both rows through a topic named `name` into `<name>.everything`, and holds columns, descriptions and values against what `reader`
/// finds there.
pub fn read_back(servers: &Servers, installation: &Installation, reader: &Reader, name: &str, fields: &[Field]) -> anyhow::Result<()> {
    let mut declared: Vec<Json> =
        fields.iter().map(|f| json!({"name": f.name, "type": f.avro, "doc": format!("about {}", f.name)})).collect();
    declared.push(json!({"name": "f_null", "type": "null"})); // has no column
    let schema = json!({"type": "record", "name": "Everything", "namespace": "live", "fields": declared});
    let kafka = servers.kafka()?;
    kafka.create_topic(name, 1, &[])?;
    kafka.create_topic(&format!("{name}.dead"), 1, &[])?;
    let id = servers.registry()?.register(&format!("{name}-value"), &schema, &[])?;
    let table = format!("{name}.everything");
    installation.connector(name, &avro_connector(name, &table, &format!("{name}.dead")))?;
    let worker = installation.start()?;

    let encoder = Schema::parse(&physical(&schema))?;
    let producer = Producer::new(kafka.client(), name)?;
    for row in 0..2 {
        let mut values: Vec<(&str, Value)> = fields.iter().map(|f| (f.name, f.rows[row].0.clone())).collect();
        values.push(("f_null", Value::Null));
        let value = framed(id, &encode(&encoder, record(&values))?);
        producer.send(row.to_string(), &Outgoing { value: Some(&value), ..Outgoing::default() })?;
    }
    ensure!(producer.journal()?.len() == 2);

    let arrived = wait_for("both rows", Duration::from_secs(60), || {
        if reader.schema(&table)?.is_none() {
            return Ok(None);
        }
        let mut rows = reader.rows(&table)?;
        rows.sort_by_key(|row| row["kafka_offset"].as_i64());
        Ok((rows.len() == 2).then_some(rows))
    });
    let found = arrived.with_context(|| format!("status: {}", worker.status().unwrap_or_default()))?;
    let columns = reader.schema(&table)?.context("the table")?;
    let mut wrong = Vec::new();
    for f in fields {
        let column = columns.iter().find(|column| column["name"] == f.name);
        let shape = column.map(|c| (c["type"].as_str().unwrap_or_default(), c["mode"].as_str().unwrap_or_default()));
        if shape != Some(f.column) {
            wrong.push(format!("{}: column is {shape:?}, wanted {:?}", f.name, f.column));
        }
        if column.is_some_and(|c| c["description"] != format!("about {}", f.name)) {
            wrong.push(format!("{}: description is {:?}", f.name, column.map(|c| &c["description"])));
        }
        for (row, (_, wanted)) in f.rows.iter().enumerate() {
            if found[row][f.name] != *wanted {
                wrong.push(format!("{} of row {row}: {} was read back, wanted {wanted}", f.name, found[row][f.name]));
            }
        }
    }
    ensure!(!columns.iter().any(|column| column["name"] == "f_null"), "a field of type null got a column");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
