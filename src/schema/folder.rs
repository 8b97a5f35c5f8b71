//! Schemas of a local folder, named by a record's header.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::folder_index::{FolderIndex, check_name};
use super::limits::check_text;
use super::parse::{SchemaText, parse};
use super::{SchemaError, SchemaSource};
use crate::decode::{AvroSchema, SchemaKey};
use crate::flow::{Clock, SystemClock};

/// The folder is looked at again at most this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Schemas of the `.avsc` files of a folder (and of folders within it, by their path).
///
/// A name is a file's name with or without `.avsc`, or the full or short name of the record in it. Files may use each other's named types.
/// The schema's id is the first 16 hex digits of the SHA-256 of its file.
///
/// **Promise**: nothing outside the folder is read, also not through links. A name that leads outside is a dead letter; a file that is
/// missing, half written or unparsable holds (someone can mend it, and nothing is lost meanwhile), and concerns only the records that name
/// it. The folder is read again when it has changed.
#[derive(Clone)]
pub struct FolderSource {
    inner: Arc<Inner>,
}

struct Inner {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    index: Option<FolderIndex>,
    looked: Option<Duration>,
    parsed: HashMap<usize, Result<Arc<AvroSchema>, SchemaError>>,
}

impl FolderSource {
    /// The schemas of this folder. Reads nothing yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self::with_clock(folder, Arc::new(SystemClock::new()))
    }

    /// The same with a clock of the caller's.
    pub fn with_clock(folder: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Inner { folder: folder.into(), clock, state: Mutex::default() }) }
    }

    /// Reads and parses every file: for `millrace check`. Blocks. Returns the names of the files that can be used and what is wrong with
    /// the others.
    ///
    /// # Errors
    /// `Unavailable`: the folder cannot be read.
    pub fn probe(&self) -> Result<(Vec<String>, Vec<SchemaError>), SchemaError> {
        let mut state = self.inner.state.lock();
        state.look(&self.inner.folder, self.inner.clock.now_monotonic())?;
        let names: Vec<String> = state.index.iter().flat_map(|index| &index.files).map(|file| file.name.clone()).collect();
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for (at, name) in names.into_iter().enumerate() {
            match state.parsed(&self.inner.folder, at) {
                Ok(_) => good.push(name),
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }
}

#[async_trait]
impl SchemaSource for FolderSource {
    async fn fetch(&self, key: &SchemaKey) -> Result<Arc<AvroSchema>, SchemaError> {
        let SchemaKey::Name(name) = key else {
            return Err(SchemaError::Unusable(format!("{key} is no name of a file in a schema folder")));
        };
        check_name(name)?;
        let (inner, name) = (Arc::clone(&self.inner), Arc::clone(name));
        // Holding the lock lets callers that come at the same time share one look.
        let looked = tokio::task::spawn_blocking(move || inner.state.lock().fetch(&inner.folder, &name, inner.clock.now_monotonic()));
        looked.await.unwrap_or_else(|e| Err(SchemaError::Unavailable(format!("the schema folder could not be read: {e}"))))
    }
}

impl State {
    fn fetch(&mut self, folder: &Path, name: &str, now: Duration) -> Result<Arc<AvroSchema>, SchemaError> {
        if self.looked.is_none_or(|looked| now.saturating_sub(looked) >= LOOK_EVERY) {
            self.look(folder, now)?;
        }
        let Some(index) = &self.index else {
            return Err(SchemaError::Unavailable(format!("the schema folder {} was not read yet", folder.display())));
        };
        let at = index.find(name)?;
        self.parsed(folder, at)
    }

    fn look(&mut self, folder: &Path, now: Duration) -> Result<(), SchemaError> {
        if let Some(index) = FolderIndex::read(folder, self.index.as_ref())? {
            self.index = Some(index);
            self.parsed.clear();
        }
        self.looked = Some(now);
        Ok(())
    }

    fn parsed(&mut self, folder: &Path, at: usize) -> Result<Arc<AvroSchema>, SchemaError> {
        let Some(index) = &self.index else { return Err(SchemaError::Unavailable("the schema folder was not read yet".to_owned())) };
        let outcome = self.parsed.entry(at).or_insert_with(|| parse_file(folder, index, at));
        outcome.clone()
    }
}

fn parse_file(folder: &Path, index: &FolderIndex, at: usize) -> Result<Arc<AvroSchema>, SchemaError> {
    let file = &index.files[at];
    let text = file.text.as_ref().map_err(Clone::clone)?;
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    let id = digest.chars().take(16).collect();
    // Alone first: a file that needs no other one must not depend on them.
    let parsed = parse(String::clone(&id), text, &[]).or_else(|alone| {
        let readable = |text: &&str| check_text(text).is_ok() && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let others: Vec<(String, &str)> = (index.files.iter().enumerate())
            .filter(|(other, _)| *other != at)
            .filter_map(|(_, file)| Some((format!("the file {}", file.name), file.text.as_deref().ok().filter(readable)?)))
            .collect();
        let library: Vec<SchemaText<'_>> = others.iter().map(|(place, text)| SchemaText { place, text }).collect();
        if library.is_empty() { Err(alone) } else { parse(id, text, &library) }
    });
    // Not `Unusable`: a file can be mended (or is being written), unlike a registry's schema.
    parsed.map(Arc::new).map_err(|why| SchemaError::Unavailable(format!("the schema file {}: {why}", folder.join(&file.name).display())))
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
