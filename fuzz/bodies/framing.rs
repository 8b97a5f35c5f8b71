//! What names a record's schema, and the schema folder that answers for a name.
//!
//! Input: a byte (which framing; whether the header is null or not there), the header's length, the header, the record's value.

use std::cell::LazyCell;

use millrace::decode::{Framing, SchemaKey, SchemaKeyRef};
use millrace::record::{Headers, NoHeaders, Record};
use millrace::schema::{FolderSource, SchemaError, SchemaSource as _};

struct One<'h>(Option<&'h [u8]>);

impl Headers for One<'_> {
    fn last(&self, name: &str) -> Option<Option<&[u8]>> {
        (name == "schema").then_some(self.0)
    }
    fn each(&self, visit: &mut dyn FnMut(&str, Option<&[u8]>)) {
        visit("schema", self.0);
    }
}

/// A folder with one schema, and a file beside the folder that no name may reach.
struct Folder {
    source: FolderSource,
    runtime: tokio::runtime::Runtime,
    _files: tempfile::TempDir,
}

thread_local! {
    static FOLDER: LazyCell<Folder> = LazyCell::new(|| {
        let files = tempfile::tempdir().expect("a temporary folder");
        let inside = files.path().join("schemas");
        std::fs::create_dir(&inside).expect("a folder");
        let schema = include_str!("../../schemas/SMSPhysicalStockUpdates_values.avsc");
        std::fs::write(inside.join("stock.avsc"), schema).expect("a file");
        std::fs::write(files.path().join("outside.avsc"), r#"{"type":"record","name":"Outside","fields":[{"name":"a","type":"int"}]}"#).expect("a file");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Folder { source: FolderSource::new(inside), runtime, _files: files }
    });
}

/// What no input may break: no panic, data that is the value's own end, an error that says something, nothing from outside the folder.
pub fn run(input: &[u8]) {
    let [head, length, rest @ ..] = input else { return };
    let (header, value) = rest.split_at(usize::from(*length).min(rest.len()));
    let framing = match head & 3 {
        0 => Framing::Confluent,
        1 => Framing::SchemaIdHeader("schema".to_owned()),
        2 => Framing::SchemaNameHeader("schema".to_owned()),
        _ => Framing::None,
    };
    let one = One((head & 4 == 0).then_some(header));
    let headers: &dyn Headers = if head & 8 == 0 { &one } else { &NoHeaders };
    let value = (head & 16 == 0).then_some(value);
    let record = Record { topic: "t", partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers };
    match framing.split(&record) {
        Ok((key, data)) => {
            let value = value.expect("without a value there is no key");
            assert!(value.ends_with(data));
            match (&framing, key) {
                (Framing::Confluent, SchemaKeyRef::Id(id)) => {
                    assert_eq!(value, [&[0], id.to_be_bytes().as_slice(), data].concat());
                }
                (Framing::Confluent, _) => panic!("Confluent's framing has ids only"),
                _ => assert_eq!(data, value, "a header takes nothing of the value"),
            }
            fetch(&key.to_key());
        }
        Err(error) => assert!(!error.message.is_empty() && error.message.len() < 1_000, "{error}"),
    }
}

fn fetch(key: &SchemaKey) {
    assert!(!key.to_string().is_empty());
    if !matches!(key, SchemaKey::Name(_)) {
        return;
    }
    FOLDER.with(|folder| match folder.runtime.block_on(folder.source.fetch(key)) {
        Ok(schema) => {
            let name = schema.root.name().map(ToString::to_string).unwrap_or_default();
            assert!(name.contains("SMSPhysicalStockUpdates_values"), "{key} gave {name}");
        }
        Err(SchemaError::Unavailable(error)) => panic!("{key}: {error}"),
        Err(error) => assert!(error.to_string().len() < 2_000, "{error}"),
    });
}
