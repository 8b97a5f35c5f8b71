//! What the emulator cannot hold, shown on millrace's own embedded BigQuery, read back with Google's own client all the same: packed forms
//! of NUMERIC, BIGNUMERIC, TIME and DATETIME, decimals of full width, nested BYTES, values beyond BigQuery's range.

use std::time::Duration;

use apache_avro::types::Value;
use millrace::embedded::ports::free_ports;
use serde_json::json;

use super::columns::{Field, NULLABLE, decimal, field, logical, read_back, record, text, times};
use crate::harness::emulator::{PROJECT, Reader};
use crate::harness::installation::Installation;
use crate::harness::process::{Process, wait_for};
use crate::harness::registry::get;
use crate::harness::servers::{Servers, parts};

pub fn what_the_emulator_cannot_hold(servers: &Servers) -> anyhow::Result<()> {
    let test = "embedded::what_the_emulator_cannot_hold";
    let [kafka, registry, rest, grpc] = free_ports()?;
    let log = servers.folder(test)?.join("embedded.log");
    let mut embedded = Process::start("millrace embedded", env!("CARGO_BIN_EXE_millrace"), &log, |command| {
        command.arg("embedded").args(["--kafka-port", &kafka.to_string(), "--registry-port", &registry.to_string()]);
        command.args(["--bigquery-port", &rest.to_string(), "--bigquery-grpc-port", &grpc.to_string()]);
    })?;
    let address = format!("http://127.0.0.1:{rest}");
    wait_for("the embedded BigQuery answers", Duration::from_secs(30), || {
        embedded.check_running()?;
        Ok(get(&format!("{address}/bigquery/v2/projects/{PROJECT}/datasets")).ok())
    })?;
    let reader = Reader::start(&parts()?.join("python/bin/python"), Some(&address), PROJECT)?;
    reader.create_dataset("packed")?;
    let mut installation = Installation::without_bigquery(servers, test)?;
    installation.set("bigquery", "project", PROJECT);
    installation.set("bigquery", "credentials", "none");
    installation.set("bigquery", "rest_endpoint", format!("{address}/bigquery/v2"));
    installation.set("bigquery", "grpc_endpoint", format!("http://127.0.0.1:{grpc}"));
    read_back(servers, &installation, &reader, "packed", &fields().into_iter().chain(times()).collect::<Vec<_>>())
}

fn fields() -> Vec<Field> {
    use Value::{Bytes, Int, Long, Map};
    // 38 nines before the point and none behind it; then the other way round.
    let nines = 10_i128.pow(38) - 1;
    let nested =
        json!({"type": "record", "name": "Blob", "fields": [{"name": "raw", "type": "bytes"}, {"name": "kind", "type": "string"}]});
    let blob = |raw: &[u8]| record(&[("raw", Bytes(raw.to_vec())), ("kind", text("x"))]);
    vec![
        field(
            "f_numeric",
            decimal(38, 9),
            ("NUMERIC", NULLABLE),
            [
                (Bytes(nines.to_be_bytes().to_vec()), json!("99999999999999999999999999999.999999999")),
                (Bytes((-nines).to_be_bytes().to_vec()), json!("-99999999999999999999999999999.999999999")),
            ],
        ),
        field(
            "f_wide",
            decimal(38, 0),
            ("BIGNUMERIC", NULLABLE),
            [
                (Bytes(nines.to_be_bytes().to_vec()), json!("9".repeat(38))),
                (Bytes((-nines).to_be_bytes().to_vec()), json!(format!("-{}", "9".repeat(38)))),
            ],
        ),
        field(
            "f_deep",
            decimal(38, 38),
            ("BIGNUMERIC", NULLABLE),
            [
                (Bytes(nines.to_be_bytes().to_vec()), json!(format!("0.{}", "9".repeat(38)))),
                (Bytes(vec![0xFF]), json!(format!("-0.{}1", "0".repeat(37)))),
            ],
        ),
        field(
            "f_local_micros",
            logical("long", "local-timestamp-micros"),
            ("DATETIME", NULLABLE),
            [
                (Long(1_700_000_000_123_456), json!("2023-11-14T22:13:20.123456")),
                (Long(-62_135_596_800_000_000), json!("0001-01-01T00:00:00")),
            ],
        ),
        field(
            "f_timestamp_micros",
            logical("long", "timestamp-micros"),
            ("TIMESTAMP", NULLABLE),
            [
                (Long(253_402_300_799_999_999), json!("9999-12-31T23:59:59.999999+00:00")),
                (Long(-62_135_596_800_000_000), json!("0001-01-01T00:00:00+00:00")),
            ],
        ),
        field(
            "f_date",
            logical("int", "date"),
            ("DATE", NULLABLE),
            [(Int(2_932_896), json!("9999-12-31")), (Int(-719_162), json!("0001-01-01"))],
        ),
        field(
            "f_nested_bytes",
            nested,
            ("RECORD", NULLABLE),
            [(blob(&[0, 255]), json!({"raw": "AP8=", "kind": "x"})), (blob(&[]), json!({"raw": "", "kind": "x"}))],
        ),
        field(
            "f_bytes_map",
            json!({"type": "map", "values": "bytes"}),
            ("RECORD", "REPEATED"),
            [(Map([("k".to_owned(), Bytes(vec![1, 2]))].into()), json!([{"key": "k", "value": "AQI="}])), (Map([].into()), json!([]))],
        ),
    ]
}
