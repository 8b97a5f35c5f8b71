//! `millrace embedded` and `millrace datagen`, together as a user would try them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use super::{Running, millrace, text, turn};

/// Starts the embedded parts; gives their addresses by name.
fn embedded(arguments: &[&str]) -> (Running, BTreeMap<String, String>) {
    let mut parts = Running::start(&[&["embedded"], arguments].concat());
    let lines = parts.lines_until(|l| l == "ready");
    let addresses = lines.iter().filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    (parts, addresses)
}

/// One HTTP request without a library; gives the whole answer.
fn http(address: &str, request: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_generator_fills_the_embedded_broker_and_its_journal_says_with_what() {
    let _turn = turn();
    let (mut parts, addresses) = embedded(&["--topic", "stock:4", "--brokers", "2", "--dataset", "p.d"]);
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.csv");
    let arguments = ["datagen", "--topic", "stock", "--framing", "registry", "--rate", "50000", "--count", "20000", "--bad-records", "1%"];
    let mut command = millrace(&arguments);
    command.args(["--brokers", &addresses["kafka"], "--registry", &addresses["registry"]]).arg("--journal").arg(&journal);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let entries = std::fs::read_to_string(&journal).unwrap();
    let places: BTreeSet<(&str, &str)> =
        entries.lines().skip(1).map(|l| (l.split(',').next().unwrap(), l.split(',').nth(1).unwrap())).collect();
    assert_eq!(places.len(), 20_000);
    let bad = entries.lines().filter(|l| l.ends_with(",bad")).count();
    assert!((100..400).contains(&bad), "{bad} bad records of 20,000 at 1 %");
    let registry = addresses["registry"].trim_start_matches("http://");
    let answer = http(registry, "GET /subjects/stock-value/versions/latest", "");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("SMSPhysicalStockUpdates_values"), "{answer}");
    let bigquery = addresses["bigquery"].trim_start_matches("http://").split('/').next().unwrap();
    let answer = http(bigquery, "GET /bigquery/v2/projects/p/datasets/d", "");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    parts.signal(Signal::TERM);
    assert_eq!(parts.0.wait().unwrap().code(), Some(0));
}

#[test]
fn the_rate_changes_while_it_runs() {
    let _turn = turn();
    let (_parts, addresses) = embedded(&["--topic", "stock:2"]);
    let mut datagen =
        Running::start(&["datagen", "--topic", "stock", "--brokers", &addresses["kafka"], "--rate", "100", "--rate-port", "0"]);
    let lines = datagen.lines_until(|l| l.contains("rate at http://"));
    let address = lines[0].trim_start_matches("rate at http://").trim_end_matches("/rate").to_owned();
    datagen.lines_until(|l| l.contains("of 100/s asked"));
    let answer = http(&address, "POST /rate", "5000");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let per_second = |line: &str| line.split(", ").nth(1).and_then(|p| p.split('/').next()).and_then(|n| n.parse::<f64>().ok());
    datagen.lines_until(|l| l.contains("of 5000/s asked") && per_second(l) > Some(3_000.0));
    datagen.signal(Signal::INT);
    assert_eq!(datagen.0.wait().unwrap().code(), Some(0));
}
