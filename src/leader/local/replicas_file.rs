//! The wished number of workers in a file: one line, a decimal number. Whoever started the workers writes it first and follows it from then
//! on.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use crate::leader::replicas::{Replicas, Scale};
use crate::leader::store::StoreError;

/// The file. Only the holder of the lock writes it, by a new file that takes its place: a reader sees one number or the other, never half
/// of one.
pub struct ReplicasFile {
    path: PathBuf,
}

impl ReplicasFile {
    /// At this path.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Writes a number whatever stood there: for whoever starts the workers.
    ///
    /// # Errors
    /// The system's.
    pub fn put(path: &Path, replicas: u32) -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(new, "{replicas}")?;
        new.persist(path)?;
        Ok(())
    }

    fn look(&self) -> Result<Scale, StoreError> {
        let place = self.path.display();
        let text = std::fs::read_to_string(&self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                StoreError::Missing(format!("{place}: missing; whoever starts the workers writes their number there first"))
            }
            _ => StoreError::Refused(format!("{place}: {error}")),
        })?;
        let replicas =
            text.trim().parse().map_err(|_| StoreError::Refused(format!("{place}: expected one line with a number of workers")))?;
        // The time of the change too: a number that was changed and changed back is another state.
        let changed = std::fs::metadata(&self.path)
            .and_then(|data| data.modified())
            .map_err(|error| StoreError::Refused(format!("{place}: {error}")))?;
        let mut version = Sha256::new();
        version.update(&text);
        version.update(format!("{changed:?}"));
        Ok(Scale { replicas, existing: None, version: hex::encode(version.finalize()) })
    }
}

#[async_trait]
impl Replicas for ReplicasFile {
    async fn read(&self, _: Duration) -> Result<Scale, StoreError> {
        self.look()
    }

    async fn write(&self, version: &str, replicas: u32, _: Duration) -> Result<(), StoreError> {
        if self.look()?.version != version {
            return Err(StoreError::Conflict);
        }
        Self::put(&self.path, replicas).map_err(|error| StoreError::Refused(format!("{}: {error}", self.path.display())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_number_is_read_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replicas");
        let file = ReplicasFile::new(path.clone());
        assert!(matches!(file.read(SOON).await, Err(StoreError::Missing(_))));
        ReplicasFile::put(&path, 1).unwrap();
        let scale = file.read(SOON).await.unwrap();
        assert_eq!(scale.replicas, 1);
        file.write(&scale.version, 4, SOON).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4\n");
        assert_eq!(file.write(&scale.version, 5, SOON).await, Err(StoreError::Conflict), "a second write of the same reading");
    }

    #[tokio::test]
    async fn a_number_set_by_hand_refuses_a_write_that_did_not_see_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("replicas");
        ReplicasFile::put(&path, 1).unwrap();
        let file = ReplicasFile::new(path.clone());
        let scale = file.read(SOON).await.unwrap();
        std::fs::write(&path, "7").unwrap();
        assert_eq!(file.write(&scale.version, 2, SOON).await, Err(StoreError::Conflict));
        std::fs::write(&path, "many").unwrap();
        assert!(matches!(file.read(SOON).await, Err(StoreError::Refused(words)) if words.contains("number of workers")));
    }
}
