//! One file, its mistakes, the messages.

use super::{CONNECTOR, FLEET, complaints, connector_complaints};

#[test]
fn all_mistakes_of_all_files_come_at_once() {
    let fleet = r#"
[kafka]
"bootstrap.server" = "a:9092"
"enable.auto.commit" = true

[bigquerry]
project = "p"

[worker]
memory = "512"
shards = "two"
"#;
    let a = r#"
topcs = ["orders"]

[value]
format = "avr"

[table]
name = "orders"
cluster = ["a", "b", "c", "d", "e"]
create = true
linger = "1s"

[delivery]
batch_bytes = "10 MiB"
"#;
    let b = "topics = [\"x\"\n[value]\nformat = \"avro\"\n[table]\nname = \"d.t\"\n";
    let text = complaints(fleet, &[("a.toml", a), ("b.toml", b)]);
    let expected = [
        "connectors/a.toml:2:1: topcs: unknown key; did you mean `topics`?",
        "connectors/a.toml:5:10: value.format: `avr` is not one of `avro`, `json`; did you mean `avro`?",
        "connectors/a.toml:8:8: table.name: `orders` is no table: expected `dataset.table` or `project.dataset.table`",
        "connectors/a.toml:9:11: table.cluster: 5 columns: BigQuery clusters by four at most",
        "connectors/a.toml:11:1: table.linger: unknown key; it belongs to [delivery]",
        "connectors/a.toml:14:15: delivery.batch_bytes: `10 MiB` is out of range: expected 64 KiB to 9 MiB",
    ];
    for line in expected {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    let of_b: Vec<&str> = text.lines().filter(|line| line.starts_with("connectors/b.toml")).collect();
    assert_eq!(of_b, ["connectors/b.toml:2:1: not valid TOML: missing comma between array elements, expected `,`"]);
    let expected = [
        "millrace.toml:3:22: kafka.\"bootstrap.server\": librdkafka has no such property; did you mean `bootstrap.servers`?",
        "millrace.toml:4:24: kafka.\"enable.auto.commit\": may not be set: millrace commits what is durable, and nothing else",
        "millrace.toml:6:2: bigquerry: unknown key; did you mean `bigquery`?",
        "millrace.toml:10:10: worker.memory: `512` is not a number of bytes such as \"256 MiB\", \"1 MB\" (the unit is missing)",
        "millrace.toml:11:10: worker.shards: expected a whole number, found text",
    ];
    for line in expected {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
}

#[test]
fn mistakes_of_syntax_do_not_hide_others() {
    let text = connector_complaints("topics = [\"a\"]\ngroup = g\nstrat = \"latest\"\n[value]\nformat = avro\n");
    assert_eq!(
        text,
        "2:9: not valid TOML: string values must be quoted, expected literal string\n\
         3:1: strat: unknown key; did you mean `start`?\n\
         5:10: not valid TOML: string values must be quoted, expected literal string"
    );
}

#[test]
fn missing_keys_say_what_is_expected() {
    assert_eq!(connector_complaints("topics = [\"a\"]\n"), "1:1: table: missing: expected a table\n1:1: value: missing: expected a table");
    assert_eq!(
        connector_complaints("[value]\n[table]\n"),
        "1:1: topics: missing: expected `topics` or `topics_regex`\n\
         1:1: value.format: missing: expected one of `avro`, `json`\n\
         2:1: table.name: missing: expected `name = \"dataset.table\"` or [table.by_topic]"
    );
}

#[test]
fn a_key_below_the_wrong_header_is_told_where_it_belongs() {
    let text = connector_complaints("topics = [\"a\"]\n[value]\nformat = \"avro\"\n[table]\nname = \"d.t\"\ngroup = \"g\"\n");
    assert_eq!(text, "6:1: table.group: unknown key; it belongs to the top of the file, before the first [table]");
}

/// One line of a good connector exchanged or added, and what is said then.
#[test]
fn impossible_combinations() {
    let cases = [
        (
            "topics = [\"orders\"]",
            "topics = [\"a b\"]",
            "2:11: topics[0]: `a b`: expected a topic's name: 1 to 249 letters, digits, `.`, `_`, `-`",
        ),
        ("topics = [\"orders\"]", "topics = [\"a\", \"a\"]", "2:16: topics[1]: `a` is there twice"),
        ("topics = [\"orders\"]", "topics_regex = \"a(\"", "2:16: topics_regex: `a(` is no regular expression: unclosed group"),
        (
            "topics = [\"orders\"]",
            "topics_regex = \".*\"",
            "2:16: topics_regex: the dead-letter topic `a.dead` matches `topics_regex`, so dead letters would come back for ever: choose another",
        ),
        (
            "topics = [\"orders\"]",
            "topics = [\"orders\"]\ntopics_regex = \"x\"",
            "3:16: topics_regex: cannot be combined with `topics`: one of the two",
        ),
        (
            "format = \"avro\"",
            "format = \"avro\"\nschemas = \".\"",
            "6:11: value.schemas: needs `schema_header`: the header that names a schema of the folder",
        ),
        (
            "format = \"avro\"",
            "format = \"avro\"\nschema_header = \"s\"",
            "6:17: value.schema_header: needs `schemas`: the folder whose schemas the header names",
        ),
        ("shop.orders", "a.b.c.d", "8:8: table.name: `a.b.c.d` is no table: expected `dataset.table` or `project.dataset.table`"),
        ("shop.orders", "${topic}.t", "8:8: table.name: `${topic}.t`: `${topic}` can stand in the table's part only"),
        ("shop.orders", "shop.${topics}", "8:8: table.name: `shop.${topics}`: only `${topic}` can stand in a table's name"),
        (
            "name = \"shop.orders\"",
            "by_topic = { order = \"a.b\" }",
            "2:11: topics[0]: `orders` has no table: add it to [table.by_topic], or set `name`",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\ncluster = [\"a\"]",
            "9:11: table.cluster: counts for created tables only: set create = true, or leave it out",
        ),
        ("name = \"shop.orders\"", "name = \"shop.orders\"\nmetadata = [\"topic\", \"topic\"]", "9:22: table.metadata[1]: is there twice"),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\nmetadata = [\"topic\", \"key\"]\nmetadata_names = { key = \"KAFKA_topic\" }",
            "9:22: table.metadata[1]: its column `KAFKA_topic` is also that of `topic`",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\nmetadata_names = { key = \"k\" }",
            "9:26: table.metadata_names.key: names a column that `metadata` does not ask for",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\n[table.columns]\nt = { type = \"INT64\", unit = \"ms\" }",
            "10:30: table.columns.t.unit: needs a type that is a time: DATE, TIME, DATETIME or TIMESTAMP",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\n[table.columns]\nt = { type = \"TIMESTAMP\", unit = \"msec\" }",
            "10:34: table.columns.t.unit: `msec` is not one of `d`, `s`, `ms`, `us`, `ns`",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\n[delivery]\nguarantee = \"exactly-twice\"",
            "10:13: delivery.guarantee: `exactly-twice` is not one of `at-least-once`, `exactly-once`; did you mean `exactly-once`?",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\n[delivery]\nlinger = \"2 min\"",
            "10:10: delivery.linger: `2m` is out of range: expected 1ms to 1m",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\n[errors]\ndead_letter_topic = \"orders\"",
            "10:21: errors.dead_letter_topic: `orders` is also a topic of this connector: its dead letters would come back for ever",
        ),
        (
            "name = \"shop.orders\"",
            "name = \"shop.orders\"\n[kafka]\n\"group.id\" = \"g\"",
            "10:14: kafka.\"group.id\": may not be set: set `group` in the connector's file",
        ),
    ];
    for (from, to, expected) in cases {
        let file = CONNECTOR.replace(from, to);
        assert_ne!(file, CONNECTOR, "{from} is not in the file");
        let text = connector_complaints(&file);
        assert!(text.lines().any(|line| line == expected), "expected `{expected}` for\n{file}\nfound\n{text}");
    }
}

#[test]
fn impossible_fleets() {
    let cases = [
        (
            "[registry]\nurls = [\"http://127.0.0.1:8081\"]\n",
            "",
            "connectors/a.toml:5:10: value.format: needs schemas: from a registry ([registry] in the fleet's file) or from a folder (`schemas` and `schema_header` here)",
        ),
        (
            "http://127.0.0.1:8081",
            "127.0.0.1:8081",
            "millrace.toml:6:9: registry.urls[0]: `127.0.0.1:8081` is no address: expected http://host:port or https://host",
        ),
        (
            "http://127",
            "http://u:geheim@127",
            "millrace.toml:6:9: registry.urls[0]: the address holds a user or a password, and addresses are shown in messages: use the keys for them",
        ),
        (
            "project = \"p\"",
            "project = \"p\"\n[worker]\nlisten = \"8080\"",
            "millrace.toml:11:10: worker.listen: `8080` is no address to listen on: expected an IP address and a port, such as `0.0.0.0:8080`",
        ),
        (
            "project = \"p\"",
            "project = \"p\"\n[worker]\nmemory = \"8 MiB\"",
            "millrace.toml:11:10: worker.memory: 8 MiB is too small for 1 connectors with their `batch_bytes` and 1 shards each: expected at least 32 MiB",
        ),
        (
            "project = \"p\"",
            "project = \"p\"\n[scaling]\nmode = \"kubernets\"",
            "millrace.toml:11:8: scaling.mode: `kubernets` is not one of `off`, `observe`, `local`, `kubernetes`; did you mean `kubernetes`?",
        ),
        ("project = \"p\"", "project = \"p\"\n[scaling]\nmin = 5\nmax = 3", "millrace.toml:12:7: scaling.max: 3 is below `min` (5)"),
        (
            "project = \"p\"",
            "project = \"p\"\n[scaling]\nmode = \"observe\"\nlock_file = \"lock\"",
            "millrace.toml:12:13: scaling.lock_file: has no meaning here: only `mode = \"local\"` uses it",
        ),
        (
            "project = \"p\"",
            "project = \"p\"\n[worker]\nca_file = \"none.pem\"",
            "millrace.toml:11:11: worker.ca_file: `none.pem` is no file that can be found",
        ),
        (
            "9092\"\n",
            "9092\"\n\"sasl.mechanism\" = \"AWS_MSK_IAM\"\n",
            "millrace.toml:4:20: kafka.\"sasl.mechanism\": MSK IAM is not supported (librdkafka has no signer for it): use SASL/SCRAM or mutual TLS, which MSK offers too",
        ),
        (
            "9092\"\n",
            "9092\"\n\"group.protocol\" = \"consumer\"\n\"session.timeout.ms\" = 6000\n",
            "millrace.toml:5:24: kafka.\"session.timeout.ms\": is refused under group.protocol = \"consumer\": the broker decides it there",
        ),
    ];
    for (from, to, expected) in cases {
        let file = FLEET.replace(from, to);
        assert_ne!(file, FLEET, "{from} is not in the file");
        let text = complaints(&file, &[("a.toml", CONNECTOR)]);
        assert_eq!(text, expected, "for\n{file}");
    }
}

#[test]
fn two_connectors_of_one_group_must_not_share_topics() {
    let with_group = format!("group = \"g\"\n{CONNECTOR}");
    let text = complaints(FLEET, &[("a.toml", &with_group), ("b.toml", &with_group)]);
    assert!(text.starts_with("connectors/b.toml:1:9: group: the consumer group is also that of "), "{text}");
    assert!(text.ends_with("connectors/a.toml, and both take the topic `orders`: each would miss records"), "{text}");
}

#[test]
fn folders_and_names() {
    assert_eq!(complaints(FLEET, &[]).replace("connectors: ", ""), "holds no connector: expected files such as physical-stock.toml");
    assert_eq!(
        complaints(FLEET, &[("a b.toml", CONNECTOR)]),
        "connectors/a b.toml: the file's name is the connector's: expected at most 200 letters, digits, `.`, `_`, `-`"
    );
    let missing = millrace::config::load("/nowhere/millrace.toml".as_ref(), "/nowhere/connectors".as_ref()).unwrap_err().to_string();
    assert_eq!(
        missing,
        "/nowhere/connectors: cannot be read: No such file or directory (os error 2): expected a folder of connector files\n\
         /nowhere/millrace.toml: cannot be read: No such file or directory (os error 2)"
    );
}
