//! What bad input gets: each kind a dead letter with its stage, class and words, and the good records beside it land.

use std::collections::BTreeMap;

use millrace::embedded::bigquery::Settings;
use millrace::embedded::registry::{RegistryFault, RegistryFaultRates};
use millrace::pipeline::ConnectorState;
use rdkafka::message::{Message, OwnedMessage};

use super::rig::{Rig, SOON, header, json_connector, metric, wait_until};

/// A field of each kind that can be wrong.
const SCHEMA: &str = r#"{"type": "record", "name": "Bad", "fields": [
    {"name": "id", "type": "long"},
    {"name": "n", "type": "int"},
    {"name": "flag", "type": "boolean"},
    {"name": "note", "type": ["null", "string"]},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}},
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 9}},
    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "bits", "type": {"type": "array", "items": {"type": "record", "name": "Bit", "fields": [{"name": "b", "type": "boolean"}]}}}
]}"#;

fn long(n: i64, out: &mut Vec<u8>) {
    let mut rest = ((n << 1) ^ (n >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn encoded(n: i64) -> Vec<u8> {
    let mut out = Vec::new();
    long(n, &mut out);
    out
}

/// A record field by field, so that one can be exchanged.
fn fields(id: i64) -> Vec<Vec<u8>> {
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    vec![encoded(id), encoded(7), vec![1], vec![2, 2, b'x'], vec![2], vec![2, 5], encoded(19_000), encoded(now_ms), vec![0]]
}

fn with(id: i64, field: usize, bytes: Vec<u8>) -> Vec<u8> {
    let mut all = fields(id);
    all[field] = bytes;
    all.concat()
}

fn framed(schema: u32, payload: &[u8]) -> Vec<u8> {
    [&[0], &schema.to_be_bytes()[..], payload].concat()
}

/// Name, value, stage, class, a part of the message.
type Case = (&'static str, Vec<u8>, &'static str, &'static str, &'static str);

fn cases(schema: u32) -> Vec<Case> {
    let good = fields(1).concat();
    let bad = |field, bytes| framed(schema, &with(1, field, bytes));
    // 2.5 MB of Avro that are over 9 MiB as a row: a byte of a record in an array is four of them.
    let mut bits = encoded(2_500_000);
    bits.extend(std::iter::repeat_n(1, 2_500_000));
    bits.push(0);
    let long_ago_ms = 946_684_800_000;
    vec![
        ("too short for its framing", vec![0, 0, 1], "framing", "TooShort", "byte"),
        ("wrong magic byte", [&[7], &framed(schema, &good)[1..]].concat(), "framing", "WrongMagicByte", "7"),
        ("unknown schema id", framed(999_999, &good), "schema", "UnknownSchemaId", "999999"),
        ("truncated", framed(schema, &good[..good.len() - 1]), "decode", "TruncatedData", "byte"),
        ("overlong", framed(schema, &[&good[..], &[0]].concat()), "decode", "OverlongData", "byte"),
        ("int beyond 32 bits", bad(1, encoded(1 << 40)), "decode", "IntOutOfRange", "`n`"),
        ("boolean byte of 2", bad(2, vec![2]), "decode", "InvalidBoolean", "`flag`"),
        ("union index out of range", bad(3, vec![4]), "decode", "UnionIndexOutOfRange", "`note`"),
        ("enum symbol out of range", bad(4, vec![4]), "decode", "EnumIndexOutOfRange", "`kind`"),
        ("invalid UTF-8", bad(3, vec![2, 4, 0xC3, 0x28]), "decode", "InvalidUtf8", "`note`"),
        ("number beyond NUMERIC", bad(5, [&encoded(17)[..], &[0x7F; 17]].concat()), "decode", "ValueOutOfRange", "`price`"),
        ("date beyond 9999", bad(6, encoded(2_932_897)), "decode", "ValueOutOfRange", "`day`"),
        ("partition too old for streaming", bad(7, encoded(long_ago_ms)), "decode", "PartitionOutOfRange", "`at`"),
        ("row over the size limit", bad(8, bits), "decode", "RowTooLarge", "byte"),
    ]
}

fn check(letters: &[OwnedMessage], cases: &[(&str, Vec<u8>, &str, &str, &str)], topic: &str) {
    let by_key: BTreeMap<String, &OwnedMessage> =
        letters.iter().map(|letter| (String::from_utf8_lossy(letter.key().unwrap_or_default()).into_owned(), letter)).collect();
    for (name, value, stage, class, words) in cases {
        let letter = by_key.get(*name).unwrap_or_else(|| panic!("no dead letter of \"{name}\" among {:?}", by_key.keys()));
        assert!(letter.payload() == Some(&value[..]), "the value of \"{name}\" is not as it was");
        let message = header(letter, "__connect.errors.exception.message");
        let got = (header(letter, "__connect.errors.stage"), header(letter, "__connect.errors.exception.class.name"));
        assert_eq!((got.0.as_str(), got.1.as_str()), (*stage, *class), "\"{name}\": {message}");
        assert!(message.contains(words), "\"{name}\": no `{words}` in: {message}");
        assert_eq!(header(letter, "__connect.errors.topic"), topic, "\"{name}\"");
        assert_eq!(metric("millrace_dead_letters_total", &[("connector", topic), ("cause", class)]).min(1.0), 1.0, "\"{name}\"");
    }
    assert_eq!(letters.len(), cases.len(), "as many dead letters as bad records");
}

fn avro(topic: &str, value: &str) -> String {
    format!(
        "topics = [\"{topic}\"]\n[value]\nformat = \"avro\"\n{value}\n[table]\nname = \"d.{topic}\"\ncreate = true\n\
         partition = {{ by = \"at\", every = \"day\" }}\n[delivery]\nlinger = \"10ms\"\n[errors]\ndead_letter_topic = \"{topic}-dead\"\n"
    )
}

#[test]
fn bad_records_in_the_registrys_framing() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("bad", 1, 1);
    rig.topic("bad-dead", 1, 1);
    let schema = rig.registry.register("bad-value", SCHEMA, Vec::new()).unwrap();
    let cases = cases(schema);
    let connector = rig.start("bad", &avro("bad", ""));
    for (at, (name, value, ..)) in cases.iter().enumerate() {
        rig.produce("bad", 0, name, value, &[]);
        rig.produce("bad", 0, "good", &framed(schema, &fields(100 + at as i64).concat()), &[]);
    }
    rig.wait_for_ids("bad", 100..100 + cases.len() as i64);
    // The topic has a letter before its acknowledgement is counted.
    wait_until("every letter counted", SOON, || connector.status().dead_letters >= cases.len() as u64);
    check(&rig.read_topic("bad-dead", 1, cases.len()), &cases, "bad");
    assert!(rig.ids("bad").len() == cases.len() && rig.ids("bad").values().all(|copies| *copies == 1), "the good ones, once");
    assert_eq!(connector.status().dead_letters, cases.len() as u64);
    assert_eq!(connector.wait_for_state(ConnectorState::Running, SOON).message, None);
    connector.stop();
}

#[test]
fn bad_headers_of_schemas_in_a_folder() {
    let rig = Rig::new(1, Settings::default());
    rig.topic("named", 1, 1);
    rig.topic("named-dead", 1, 1);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Bad.avsc"), SCHEMA).unwrap();
    let value = format!("schemas = {:?}\nschema_header = \"schema\"", folder.path().display().to_string());
    let connector = rig.start("named", &avro("named", &value));
    let good = fields(1).concat();
    let cases: Vec<Case> = vec![
        ("missing schema header", good.clone(), "framing", "MissingSchemaHeader", "`schema`"),
        ("header that points outside", good.clone(), "framing", "SchemaHeaderOutsideFolder", "folder"),
    ];
    rig.produce("named", 0, cases[0].0, &good, &[]);
    rig.produce("named", 0, "good", &good, &[("schema", "Bad")]);
    rig.produce("named", 0, cases[1].0, &good, &[("schema", "../Bad")]);
    rig.produce("named", 0, "good", &fields(2).concat(), &[("schema", "Bad")]);
    rig.wait_for_ids("named", 1..3);
    wait_until("every letter counted", SOON, || connector.status().dead_letters >= 2);
    check(&rig.read_topic("named-dead", 1, 2), &cases, "named");
    connector.stop();
}

/// A registry that is down or answers rubbish: held, said, nothing dead-lettered, over by itself.
#[test]
fn a_registry_in_trouble_is_a_hold() {
    for (fault, topic) in [(RegistryFault::Down, "regdown"), (RegistryFault::Rubbish, "regrubbish")] {
        let rig = Rig::new(1, Settings::default());
        rig.topic(topic, 1, 1);
        let schema = rig.registry.register(&format!("{topic}-value"), SCHEMA, Vec::new()).unwrap();
        rig.registry.set_faults(RegistryFaultRates::none().with(fault, 1.0));
        let connector = rig.start(topic, &avro(topic, ""));
        rig.produce(topic, 0, "good", &framed(schema, &fields(1).concat()), &[]);
        connector.wait_for_hold(topic, "schema_source_unavailable");
        connector.wait_for_state(ConnectorState::Holding, SOON);
        rig.registry.set_faults(RegistryFaultRates::none());
        rig.wait_for_ids(topic, 1..2);
        connector.wait_for_state(ConnectorState::Running, SOON);
        assert_eq!(connector.status().dead_letters, 0, "{fault:?}");
        connector.stop();
    }
}

/// A table that is missing, and one with a column of another type: only their partitions hold, and the message says what to do.
#[test]
fn tables_that_do_not_fit_hold_their_partitions_only() {
    let rig = Rig::new(1, Settings::default());
    for topic in ["fits", "missing", "typed", "setup"] {
        rig.topic(topic, 1, 1);
    }
    let setup = rig.start("setup", &json_connector("\"setup\"", "typed", "x.dead").replace("INT64", "STRING"));
    rig.produce("setup", 0, "first", b"{\"id\": \"text\"}", &[]);
    wait_until("the other table", SOON, || rig.bigquery.books().rows("p", "d", "typed") == Some(1));
    setup.stop();
    let schema = r#"{"type": "record", "name": "Id", "fields": [{"name": "id", "type": "long"}]}"#;
    let schema = rig.registry.register("id-value", schema, Vec::new()).unwrap();
    let fine = rig.start(
        "fine",
        "topics = [\"fits\", \"typed\"]\n[value]\nformat = \"avro\"\n[table]\nname = \"d.${topic}\"\ncreate = true\n[delivery]\nlinger = \"10ms\"\n",
    );
    let missing = rig.start("missing", &json_connector("\"missing\"", "missing", "x.dead").replace("create = true", "create = false"));
    for id in 0..5 {
        for topic in ["fits", "typed"] {
            rig.produce(topic, 0, "k", &framed(schema, &encoded(id)), &[]);
        }
    }
    rig.produce_ids("missing", 0, 0..5);
    rig.wait_for_ids("fits", 0..5);
    let typed = fine.wait_for_hold("typed", "type_conflict");
    assert!(typed.message.contains("`id`"), "{typed:?}");
    let status = fine.wait_for_state(ConnectorState::Holding, SOON);
    assert_eq!(status.partitions.iter().find(|p| p.topic == "fits").unwrap().hold, None);
    let hold = missing.wait_for_hold("missing", "table_missing");
    assert!(hold.message.contains("create = true"), "{hold:?}");
    missing.wait_for_state(ConnectorState::Holding, SOON);
    assert_eq!(fine.status().dead_letters + missing.status().dead_letters, 0);
    fine.stop();
    missing.stop();
}
