#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

//! Schemas as people and registries have them: types that come from elsewhere, names, what is refused.

use std::time::Duration;

use super::super::limits::NAME_BYTES_MAX;
use super::*;

/// A library of texts called `t0`, `t1`...
fn with(text: &str, library: &[&str]) -> Result<AvroSchema, String> {
    let places: Vec<String> = (0..library.len()).map(|n| format!("t{n}")).collect();
    let library: Vec<SchemaText<'_>> = places.iter().zip(library).map(|(place, text)| SchemaText { place, text }).collect();
    parse("1".to_owned(), text, &library)
}

fn names(schema: &AvroSchema) -> Vec<String> {
    schema.references.iter().map(|s| s.name().unwrap().fullname(None)).collect()
}

const COLOUR: &str = r#"{"type":"record","name":"Paint","namespace":"a.b","fields":[
    {"name":"colour","type":{"type":"enum","name":"Colour","symbols":["RED"]}},
    {"name":"tin","type":["null",{"type":"array","items":{"type":"fixed","name":"Code","namespace":"x","size":4}}]}]}"#;

#[test]
fn a_type_inside_a_reference_is_found() {
    // Many times: apache-avro alone fails in some of the orders.
    for _ in 0..50 {
        let root = r#"{"type":"record","name":"Wall","namespace":"a.b","fields":[
            {"name":"p","type":"Paint"},{"name":"c","type":"a.b.Colour"},{"name":"k","type":"x.Code"}]}"#;
        let schema = with(root, &[COLOUR]).unwrap();
        assert_eq!(names(&schema), ["a.b.Colour", "a.b.Paint", "x.Code"]);
    }
}

#[test]
fn connect_names_are_kept_also_those_of_references() {
    let date = r#"{"type":"record","name":"d.Day","fields":[{"name":"d","type":{"type":"int","connect.name":"io.debezium.time.Date"}}]}"#;
    let root =
        r#"{"type":"record","name":"W","fields":[{"name":"t","type":{"type":"long","connect.name":"T"}},{"name":"d","type":"d.Day"}]}"#;
    let schema = with(root, &[date]).unwrap();
    assert_eq!(schema.connect_names.get("W", "t", "long"), Some("T"));
    assert_eq!(schema.connect_names.get("d.Day", "d", "int"), Some("io.debezium.time.Date"));
}

#[test]
fn only_what_is_needed_is_kept_and_own_definitions_win() {
    let root = r#"{"type":"record","name":"Wall","fields":[{"name":"c","type":"a.b.Colour"}]}"#;
    assert_eq!(names(&with(root, &[COLOUR]).unwrap()), ["a.b.Colour"]);
    let own = r#"{"type":"record","name":"W","fields":[{"name":"c","type":{"type":"enum","name":"a.b.Colour","symbols":["BLUE"]}}]}"#;
    assert_eq!(names(&with(own, &[COLOUR]).unwrap()), Vec::<String>::new());
}

#[test]
fn a_root_that_is_only_a_name_is_what_it_names() {
    let schema = with(r#""a.b.Paint""#, &[COLOUR]).unwrap();
    assert!(matches!(&schema.root, Schema::Record(record) if record.name.fullname(None) == "a.b.Paint"));
    let union = with(r#"["a.b.Paint","x.Code"]"#, &[COLOUR]).unwrap();
    assert!(matches!(&union.root, Schema::Union(_)));
}

#[test]
fn two_definitions_of_one_name_matter_when_it_is_used() {
    let other = r#"{"type":"enum","name":"Colour","namespace":"a.b","symbols":["GREEN"]}"#;
    let root = r#"{"type":"record","name":"W","fields":[{"name":"c","type":"a.b.Colour"}]}"#;
    assert!(with(root, &[COLOUR, other]).unwrap_err().contains("two ways"));
    assert!(with(r#""x.Code""#, &[COLOUR, other]).is_ok());
    assert!(with(root, &[COLOUR, COLOUR]).is_ok());
}

/// A record of the namespace `a` with these fields.
fn record_of(fields: &[&str]) -> String {
    let fields: Vec<String> = fields.iter().enumerate().map(|(n, ty)| format!(r#"{{"name":"f{n}","type":{ty}}}"#)).collect();
    format!(r#"{{"type":"record","name":"R","namespace":"a","fields":[{}]}}"#, fields.join(","))
}

#[test]
fn a_name_that_one_text_defines_in_two_ways_is_refused() {
    let pairs = [
        ("a.E", r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, r#"{"type":"enum","name":"a.E","symbols":["B","A"]}"#),
        ("a.E", r#"{"type":"enum","name":"E","symbols":["A"]}"#, r#"{"type":"fixed","name":"E","size":1}"#),
        (
            "x.F",
            r#"{"type":"fixed","name":"x.F","size":4}"#,
            r#"{"type":"array","items":{"type":"fixed","name":"F","namespace":"x","size":8}}"#,
        ),
        ("N", r#"{"type":"fixed","name":"N","namespace":"","size":4}"#, r#"["null",{"type":"fixed","name":".N","size":8}]"#),
        (
            "a.D",
            r#"{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":8,"scale":2}"#,
            r#"{"type":"map","values":{"type":"fixed","name":"D","size":4,"logicalType":"decimal","precision":8,"scale":3}}"#,
        ),
        (
            "a.I",
            r#"{"type":"record","name":"I","fields":[{"name":"x","type":"int"},{"name":"y","type":"int"}]}"#,
            r#"{"type":"record","name":"I","fields":[{"name":"y","type":"int"},{"name":"x","type":"int"}]}"#,
        ),
        (
            "a.I",
            r#"{"type":"record","name":"I","fields":[{"name":"x","type":{"type":"long","connect.name":"io.debezium.time.Timestamp"}}]}"#,
            r#"{"type":"record","name":"I","fields":[{"name":"x","type":"long"}]}"#,
        ),
    ];
    for (name, one, other) in pairs {
        let error = with(&record_of(&[one, r#""int""#, other]), &[]).unwrap_err();
        assert!(
            error.starts_with(&format!("`{name}` is defined in two ways, at field `f0` of `a.R` and at field `f2` of `a.R`: ")),
            "{error}"
        );
    }
    let itself = record_of(&[r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int"}]}"#]);
    let error = with(&itself, &[]).unwrap_err();
    assert!(error.contains("`a.R` is defined in two ways, at the schema's outermost type and at field `f0` of `a.R`"), "{error}");
}

#[test]
fn a_name_that_a_text_and_what_it_takes_define_in_two_ways_is_refused() {
    let own = record_of(&[r#""a.b.Paint""#, r#"{"type":"enum","name":"a.b.Colour","symbols":["BLUE"]}"#]);
    let error = with(&own, &[COLOUR]).unwrap_err();
    assert!(
        error.contains("`a.b.Colour` is defined in two ways, at field `f1` of `a.R` and at field `colour` of `a.b.Paint` in t0"),
        "{error}"
    );
    // Types without a namespace, where only others' types know them.
    let holder = |name: &str, size: u8| {
        format!(
            r#"{{"type":"record","name":"{name}","namespace":"h","fields":[{{"name":"n","type":{{"type":"fixed","name":".N","size":{size}}}}}]}}"#
        )
    };
    let both = record_of(&[r#""h.X""#, r#""h.Y""#]);
    let error = with(&both, &[&holder("X", 4), &holder("Y", 8)]).unwrap_err();
    assert!(error.contains("`N` is defined in two ways, at field `n` of `h.X` in t0 and at field `n` of `h.Y` in t1"), "{error}");
    assert!(with(&both, &[&holder("X", 4), &holder("Y", 4)]).is_ok());
}

#[test]
fn definitions_that_say_the_same_are_one() {
    let one = r#"{"type":"record","name":"I","doc":"one","fields":[{"name":"e","type":{"type":"enum","name":"E","symbols":["A"]},"default":"A"}]}"#;
    let again = r#"["null",{"type":"record","name":"a.I","aliases":["J"],"fields":[{"name":"e","doc":"e","type":"a.E"}]}]"#;
    let schema = with(&record_of(&[one, again]), &[]).unwrap();
    let Schema::Record(record) = &schema.root else { panic!("{:?}", schema.root) };
    let Schema::Union(union) = &record.fields[1].schema else { panic!("{:?}", record.fields[1].schema) };
    assert!(matches!(&union.variants()[1], Schema::Ref { name } if name.fullname(None) == "a.I"), "{union:?}");
    // A copy of a type that a needed one of another text uses.
    let own = record_of(&[r#"{"type":"enum","name":"a.b.Colour","symbols":["RED"]}"#, r#""a.b.Paint""#, r#""a.b.Colour""#]);
    assert_eq!(names(&with(&own, &[COLOUR]).unwrap()), ["a.b.Colour", "a.b.Paint", "x.Code"]);
    let whole = with(COLOUR, &[&record_of(&[r#""a.b.Paint""#]), COLOUR]).unwrap();
    assert!(matches!(&whole.root, Schema::Record(record) if record.name.fullname(None) == "a.b.Paint"));
}

/// What Java's parser takes a registry holds: Debezium's namespaces are a connector's name and a database's.
#[test]
fn names_that_java_takes_are_taken() {
    let row = r#"{"type":"record","name":"Value","fields":[{"name":"d","type":{"type":"int","connect.name":"io.debezium.time.Date"}}]}"#;
    let envelope = format!(
        r#"{{"type":"record","name":"Envelope","namespace":"my-connector.2024.t","fields":[{{"name":"before","type":["null",{row}]}},{{"name":"after","type":["null","Value"]}}]}}"#
    );
    let schema = with(&envelope, &[]).unwrap();
    assert_eq!(schema.connect_names.get("my_connector._2024.t.Value", "d", "int"), Some("io.debezium.time.Date"));
    let refers = r#"{"type":"record","name":"R","fields":[{"name":"e","type":"my-connector.2024.t.Envelope"}]}"#;
    assert_eq!(names(&with(refers, &[&envelope]).unwrap()), ["my_connector._2024.t.Envelope", "my_connector._2024.t.Value"]);
    assert_eq!(full_name(&envelope).as_deref(), Some("my-connector.2024.t.Envelope"), "as a header would name it");
    // A type without a namespace, used within one: so Java writes it itself. One of the same namespace goes before it.
    let bare = r#"{"type":"enum","name":"E","namespace":"","symbols":["A"]}"#;
    let near = r#"{"type":"fixed","name":"E","size":1}"#;
    let meant = |fields: &[&str]| match with(&record_of(fields), &[]).unwrap().root {
        Schema::Record(record) => record.fields.last().unwrap().schema.name().unwrap().fullname(None),
        other => panic!("{other:?}"),
    };
    assert_eq!((meant(&[bare, r#""E""#]).as_str(), meant(&[bare, near, r#""E""#]).as_str()), ("E", "a.E"));
    assert_eq!(names(&with(&record_of(&[r#""E""#]), &[bare]).unwrap()), ["E"]);
    assert!(matches!(with(r#"{"type":"error","name":"X","fields":[]}"#, &[]).unwrap().root, Schema::Record(_)));
}

/// apache-avro takes fewer of them than Java does, and no record of ours is ever filled with one.
#[test]
fn defaults_do_not_matter() {
    for (ty, default) in [
        (r#"{"type":"string","logicalType":"uuid"}"#, r#""""#),
        (r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#, r#""\u0000""#),
        (r#"{"type":"fixed","name":"D","size":2,"logicalType":"decimal","precision":9,"scale":0}"#, r#""\u0000\u0000""#),
        (r#"{"type":"enum","name":"E","symbols":["A"],"default":null}"#, r#""B""#),
        (r#""int""#, r#""no number""#),
    ] {
        let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{ty},"default":{default}}}]}}"#);
        assert!(with(&text, &[]).is_ok(), "{text}: {:?}", with(&text, &[]));
    }
}

#[test]
fn what_is_no_schema_is_said() {
    assert!(with("{", &[]).unwrap_err().contains("no JSON"));
    assert!(with(r#"{"type":"recrod"}"#, &[]).unwrap_err().contains("no valid Avro"));
    assert!(with(r#"{"type":"record","name":"W","fields":[{"name":"c","type":"Nowhere"}]}"#, &[]).is_err());
    assert!(with(r#""Nowhere""#, &[COLOUR]).is_err());
    assert_eq!((full_name(COLOUR).as_deref(), full_name("[]"), full_name("{")), (Some("a.b.Paint"), None, None));
}

#[test]
fn long_names_are_refused_before_anything_is_made_of_them() {
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let space = format!(r#"{{"type":"record","name":"R","namespace":"{long}","fields":[]}}"#);
    let field = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{long}","type":"int"}}]}}"#);
    let used = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":"{long}"}}]}}"#);
    for text in [space, field, used] {
        let error = with(&text, &[]).map(|_| ()).unwrap_err();
        assert!(error.contains("more than 1024 bytes, which begins with `nnn") && error.len() < 200, "{error}");
        assert!(with(r#""R""#, &[&text]).is_err());
    }
    let quoted = with(&format!(r#"{{"type":"{}"}}"#, "x".repeat(100_000)), &[]).map(|_| ()).unwrap_err();
    assert!(quoted.len() < 700, "{}", quoted.len());
}

#[test]
fn hostile_schemas_take_little_time() {
    let big = |head: &str, item: &dyn Fn(usize) -> String, tail: &str| {
        let mut text = head.to_owned();
        let mut n = 0;
        while text.len() < 1_000_000 {
            if n > 0 {
                text.push(',');
            }
            text.push_str(&item(n));
            n += 1;
        }
        text + tail
    };
    let field = |n: usize| format!(r#"{{"name":"f{n}","type":"int"}}"#);
    let hostile = [
        big(r#"{"type":"record","name":"R","fields":["#, &field, "]}"),
        big(r#"{"type":"enum","name":"E","symbols":["#, &|n| format!("\"s{n}\""), "]}"),
        big("[", &|n| format!(r#"{{"type":"fixed","name":"f{n}","size":1}}"#), "]"),
        big("[", &|_| "\"int\"".to_owned(), "]"),
        big(r#"{"type":"record","name":"R","aliases":["#, &|n| format!("\"a{n}\""), r#"],"fields":[]}"#),
        big(
            r#"{"type":"record","name":"R","fields":["#,
            &|n| format!(r#"{{"name":"f{n}","type":{{"type":"record","name":"N{n}","fields":[]}}}}"#),
            "]}",
        ),
        format!("{}1{}", "[".repeat(500_000), "]".repeat(500_000)),
        format!(r#"{}{{"type":"int"}}{}"#, r#"{"type":"#.repeat(118), "}".repeat(118)),
    ];
    // Time on a processor, not on the clock: others use both.
    let used = || {
        let of_thread = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(of_thread.split(' ').next().unwrap().parse().unwrap())
    };
    for text in hostile {
        let start = used();
        let outcome = with(&text, &[]).map(|_| ());
        let took = used() - start;
        assert!(took < Duration::from_secs(5), "{took:?} for {}", &text[..60]);
        assert!(outcome.is_err() || text.starts_with(r#"{"type":"enum""#) || text.contains("aliases") || text.contains(r#"{"type":{"#));
    }
}
