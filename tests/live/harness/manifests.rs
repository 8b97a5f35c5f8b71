//! What is shipped under `deploy/`, as objects that a test may change before an API server sees them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize as _;
use serde_json::Value;

/// A file or folder of `deploy/`.
pub fn deployed(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// The objects of a file, or of all files of a folder by name.
pub fn objects(path: &Path) -> anyhow::Result<Vec<Value>> {
    if path.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|end| end == "yaml"));
        files.sort();
        return Ok(files.iter().map(|file| objects(file)).collect::<anyhow::Result<Vec<_>>>()?.concat());
    }
    parsed(&std::fs::read_to_string(path).with_context(|| path.display().to_string())?).with_context(|| path.display().to_string())
}

/// The objects of a text of YAML documents.
pub fn parsed(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize).collect::<Result<Vec<_>, _>>()?;
    let objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    ensure!(!objects.is_empty(), "no object");
    Ok(objects)
}
