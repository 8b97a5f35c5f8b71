//! Schema sources, shared by the connectors that ask the same registry or folder.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{ConnectorConfig, FleetConfig, ValueFormat};
use crate::schema::{FolderSource, RegistrySetupError, RegistrySource, SchemaSource};

/// Where schemas come from: one source for everyone who asks the same registry or folder.
pub struct SchemaSources {
    registry: Option<Arc<dyn SchemaSource>>,
    folders: Mutex<HashMap<PathBuf, Arc<dyn SchemaSource>>>,
}

impl SchemaSources {
    /// The fleet's registry, where it has one.
    ///
    /// # Errors
    /// Its settings cannot be used.
    pub fn new(fleet: &FleetConfig) -> Result<Self, RegistrySetupError> {
        let registry = match &fleet.registry {
            Some(registry) => Some(Arc::new(RegistrySource::new(registry, fleet.worker.ca_file.as_deref())?) as Arc<dyn SchemaSource>),
            None => None,
        };
        Ok(Self { registry, folders: Mutex::new(HashMap::new()) })
    }

    /// The source of a connector; none for JSON.
    pub fn of(&self, connector: &ConnectorConfig) -> Option<Arc<dyn SchemaSource>> {
        match (&connector.value.format, &connector.value.schemas) {
            (ValueFormat::Json, _) => None,
            (ValueFormat::Avro, None) => self.registry.clone(),
            (ValueFormat::Avro, Some(folder)) => {
                let mut folders = self.folders.lock();
                Some(folders.entry(folder.clone()).or_insert_with(|| Arc::new(FolderSource::new(folder.clone()))).clone())
            }
        }
    }
}
