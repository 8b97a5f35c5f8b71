//! The two TOML files: `millrace.toml` (what the fleet shares) and a connector's file; their errors; secrets.
//!
//! Belongs here: the files' types with their defaults, reading them with every mistake reported at once, secrets that are
//! never shown. Does not belong here: connecting to anything (`millrace check` does that in `cli/`).

mod connector;
mod connector_rules;
mod document;
mod errors;
mod fleet;
mod fleet_rules;
mod folder;
mod kafka_properties;
mod load;
mod rules;
mod scaling;
mod shape;
mod table_rules;
mod values;

pub use connector::{
    BadRecords, ColumnOverride, ConnectorConfig, DeliveryConfig, ErrorsConfig, Evolve, Guarantee, MetadataField, OnLostRange, OnLostStream,
    PartitionBy, PartitionEvery, RecursiveAs, RepeatedNull, StartAt, TableConfig, TimeUnit, Tombstones, UnionsAs, ValueConfig, ValueFormat,
};
pub use errors::{ConfigError, ConfigErrors};
pub use fleet::{BigQueryConfig, FleetConfig, KafkaValue, LogFormat, RegistryConfig, WorkerConfig};
pub use fleet_rules::memory_shortage;
pub use folder::{ConnectorFolder, Look, load_folder, load_usable};
pub use kafka_properties::PROPERTIES as KAFKA_PROPERTIES;
pub use load::{Loaded, group_conflict, load};
pub use scaling::{ScalingConfig, ScalingMode};
pub use values::{ByteSize, HumanDuration, Secret};

/// The JSON Schema of a connector's file.
pub fn connector_schema() -> schemars::Schema {
    schemars::schema_for!(ConnectorConfig)
}

/// The JSON Schema of `millrace.toml`.
pub fn fleet_schema() -> schemars::Schema {
    schemars::schema_for!(FleetConfig)
}
