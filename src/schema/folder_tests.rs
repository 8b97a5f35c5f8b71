#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
//! A folder of schema files as people leave them: links, half-written files, files that come later.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::flow::ManualClock;

const STOCK: &str = r#"{"type":"record","name":"Stock","namespace":"com.huub.types","fields":[{"name":"delta","type":"int"}]}"#;

struct Folder {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    source: FolderSource,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("schemas")).unwrap();
        let clock = Arc::new(ManualClock::default());
        let source = FolderSource::with_clock(dir.path().join("schemas"), Arc::clone(&clock) as Arc<dyn Clock>);
        Self { dir, clock, source }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join("schemas").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    async fn fetch(&self, name: &str) -> Result<Arc<AvroSchema>, SchemaError> {
        self.clock.advance(Duration::from_secs(1));
        self.source.fetch(&SchemaKey::Name(name.into())).await
    }
}

#[tokio::test]
async fn every_name_of_a_schema_finds_it() {
    let folder = Folder::new();
    folder.write("stock-v1.avsc", STOCK);
    let id = hex::encode(Sha256::digest(STOCK.as_bytes()))[..16].to_owned();
    for name in ["stock-v1.avsc", "stock-v1", "com.huub.types.Stock", "Stock"] {
        assert_eq!(folder.fetch(name).await.unwrap().id, id, "{name}");
    }
    for name in ["stock", "com.huub.Stock", "stock-v1.avsc.avsc"] {
        assert!(matches!(folder.fetch(name).await, Err(SchemaError::FileMissing(m)) if m.contains(name)), "{name}");
    }
    folder.write("deep/er/other.avsc", r#"{"type":"enum","name":"E","symbols":["A"]}"#);
    assert!(folder.fetch("deep/er/other").await.is_ok());
}

#[tokio::test]
async fn nothing_outside_is_read() {
    let folder = Folder::new();
    folder.write("stock.avsc", STOCK);
    fs::write(folder.dir.path().join("secret.avsc"), STOCK).unwrap();
    symlink(folder.dir.path().join("secret.avsc"), folder.dir.path().join("schemas/link.avsc")).unwrap();
    symlink(folder.dir.path(), folder.dir.path().join("schemas/up")).unwrap();
    let absolute = folder.dir.path().join("secret.avsc");
    for name in [
        "../secret",
        "../secret.avsc",
        "a/../../secret",
        absolute.to_str().unwrap(),
        "/etc/passwd",
        "..",
        ".",
        "",
        "a\0b",
        "..\\secret",
        "link",
        "./stock",
        ".hidden",
        "a//b",
    ] {
        let outcome = folder.fetch(name).await;
        assert!(matches!(outcome, Err(SchemaError::OutsideFolder(_))), "{name:?}: {outcome:?}");
    }
    assert!(matches!(folder.fetch("up/secret").await, Err(SchemaError::FileMissing(_))));
    assert!(matches!(folder.fetch(&"x".repeat(5000)).await, Err(SchemaError::OutsideFolder(m)) if m.len() < 200));
}

#[tokio::test]
async fn a_link_within_the_folder_is_followed() {
    // A ConfigMap's layout.
    let folder = Folder::new();
    folder.write("..2026_11_21/stock.avsc", STOCK);
    let schemas = folder.dir.path().join("schemas");
    symlink("..2026_11_21", schemas.join("..data")).unwrap();
    symlink("..data/stock.avsc", schemas.join("stock.avsc")).unwrap();
    assert!(folder.fetch("stock").await.is_ok());
    assert!(folder.fetch("Stock").await.is_ok());
}

#[tokio::test]
async fn a_missing_file_is_found_when_it_comes() {
    let folder = Folder::new();
    assert!(matches!(folder.fetch("Stock").await, Err(SchemaError::FileMissing(_))));
    folder.write("stock.avsc", STOCK);
    // Not looked for again within a second.
    assert!(matches!(folder.source.fetch(&SchemaKey::Name("Stock".into())).await, Err(SchemaError::FileMissing(_))));
    let first = folder.fetch("Stock").await.unwrap();
    folder.write("stock.avsc", &STOCK.replace("delta", "difference"));
    let second = folder.fetch("Stock").await.unwrap();
    assert_ne!(first.id, second.id);
    assert!(Arc::ptr_eq(&second, &folder.fetch("Stock").await.unwrap()), "an unchanged folder is not parsed again");
}

#[tokio::test]
async fn a_bad_file_holds_and_concerns_itself_only() {
    let folder = Folder::new();
    folder.write("stock.avsc", STOCK);
    folder.write("half.avsc", &STOCK[..40]);
    folder.write("wrong.avsc", r#"{"type":"record","name":"W","fields":[{"name":"a","type":"Nowhere"}]}"#);
    folder.write("large.avsc", &" ".repeat(2_000_000));
    let sizes = r#"{"type":"record","name":"Sizes","fields":[{"name":"a","type":{"type":"fixed","name":"S","size":1}},{"name":"b","type":{"type":"fixed","name":"S","size":2}}]}"#;
    folder.write("sizes.avsc", sizes);
    fs::write(folder.dir.path().join("schemas/latin.avsc"), b"\xff\xfe").unwrap();
    let twice = folder.fetch("Sizes").await.map(|_| ()).unwrap_err().to_string();
    assert!(twice.contains("sizes.avsc: `S` is defined in two ways, at field `a` of `Sizes` and at field `b` of `Sizes`"), "{twice}");
    for name in ["half", "wrong", "large", "latin", "W", "sizes"] {
        let outcome = folder.fetch(name).await;
        assert!(matches!(&outcome, Err(SchemaError::Unavailable(m)) if m.contains(".avsc")), "{name}: {outcome:?}");
    }
    assert!(folder.fetch("Stock").await.is_ok());
    let (good, bad) = folder.source.probe().unwrap();
    assert_eq!((good, bad.len()), (vec!["stock.avsc".to_owned()], 5));
    folder.write("half.avsc", &STOCK.replace("Stock", "Half"));
    assert!(folder.fetch("Half").await.is_ok());
}

#[tokio::test]
async fn files_may_use_each_others_types() {
    let folder = Folder::new();
    folder.write("order.avsc", r#"{"type":"record","name":"Order","namespace":"a","fields":[{"name":"s","type":"com.huub.types.Stock"},{"name":"c","type":"Colour"}]}"#);
    folder.write("stock.avsc", STOCK);
    folder.write("paint.avsc", r#"{"type":"record","name":"Paint","namespace":"a","fields":[{"name":"c","type":{"type":"enum","name":"Colour","symbols":["RED"]}}]}"#);
    folder.write("broken.avsc", "{");
    folder.write("deep.avsc", &format!("{}{}", "[".repeat(122), "]".repeat(122)));
    let order = folder.fetch("a.Order").await.unwrap();
    assert_eq!(order.references.len(), 2);
    // What another file says of a name counts where a type of it is taken.
    let blue = r#"{"type":"enum","name":"Colour","namespace":"a","symbols":["BLUE"]}"#;
    folder.write("sale.avsc", &format!(r#"{{"type":"record","name":"Sale","namespace":"a","fields":[{{"name":"s","type":"com.huub.types.Stock"}},{{"name":"c","type":{blue}}}]}}"#));
    assert!(folder.fetch("a.Sale").await.is_ok());
    folder.write(
        "wall.avsc",
        &format!(
            r#"{{"type":"record","name":"Wall","namespace":"a","fields":[{{"name":"s","type":"Paint"}},{{"name":"c","type":{blue}}}]}}"#
        ),
    );
    let Err(SchemaError::Unavailable(why)) = folder.fetch("a.Wall").await else { panic!("two colours are taken") };
    assert!(
        why.contains(
            "wall.avsc: `a.Colour` is defined in two ways, at field `c` of `a.Wall` and at field `c` of `a.Paint` in the file paint.avsc"
        ),
        "{why}"
    );
}

#[tokio::test]
async fn two_files_with_one_name_hold_unless_they_are_the_same() {
    let folder = Folder::new();
    folder.write("v1.avsc", STOCK);
    folder.write("copy.avsc", STOCK);
    assert!(folder.fetch("Stock").await.is_ok());
    folder.write("v2.avsc", &STOCK.replace("delta", "d"));
    assert!(matches!(folder.fetch("Stock").await, Err(SchemaError::Unavailable(m)) if m.contains("v1.avsc") || m.contains("v2.avsc")));
    assert_ne!(folder.fetch("v1").await.unwrap().id, folder.fetch("v2").await.unwrap().id);
}

#[tokio::test]
async fn a_folder_that_is_not_there_holds() {
    let source = FolderSource::new("/nonexistent/schemas");
    assert!(matches!(source.fetch(&SchemaKey::Name("Stock".into())).await, Err(SchemaError::Unavailable(m)) if m.contains("/nonexistent")));
    assert!(matches!(source.fetch(&SchemaKey::Id(1)).await, Err(SchemaError::Unusable(_))));
}
