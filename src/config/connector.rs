//! A connector's file: topics to tables. The file's name is the connector's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fleet::KafkaValue;
use super::values::{ByteSize, HumanDuration};

/// One connector file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// The connector's name: the file's, without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// The file, for messages.
    #[serde(skip)]
    pub file: PathBuf,
    /// The topics; or `topics_regex`.
    #[serde(default)]
    pub topics: Vec<String>,
    /// A regular expression over whole topic names; new topics that match are taken from their earliest record.
    #[serde(default)]
    pub topics_regex: Option<String>,
    /// The consumer group; `connect-<name>` by default, Kafka Connect's name for it.
    #[serde(default)]
    pub group: Option<String>,
    /// Where a partition without a committed offset starts.
    #[serde(default)]
    pub start: StartAt,
    /// What happens when retention deleted records before they were read.
    #[serde(default)]
    pub on_lost_range: OnLostRange,
    /// What a record without a value means.
    #[serde(default)]
    pub tombstones: Tombstones,
    /// librdkafka properties for this connector's consumer only.
    #[serde(default)]
    pub kafka: BTreeMap<String, KafkaValue>,
    /// How values are read.
    pub value: ValueConfig,
    /// Where rows go.
    pub table: TableConfig,
    /// How rows are delivered.
    #[serde(default)]
    pub delivery: DeliveryConfig,
    /// What happens to records that cannot become rows.
    #[serde(default)]
    pub errors: ErrorsConfig,
}

impl ConnectorConfig {
    /// The consumer group's name.
    pub fn group_id(&self) -> String {
        self.group.clone().unwrap_or_else(|| format!("connect-{}", self.name))
    }
    /// The dead-letter topic's name: as set, else `<connector>.dead`.
    pub fn dead_letter_topic(&self) -> String {
        self.errors.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead", self.name))
    }
}

/// Where a partition without a committed offset starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartAt {
    /// At its first record.
    #[default]
    Earliest,
    /// Behind its last record at that moment. New partitions and topics still start at their first.
    Latest,
}

/// What happens when retention deleted records before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLostRange {
    /// The partition holds and reports the lost range until this is set to `continue`.
    #[default]
    Hold,
    /// Report the range and go on at the first record that is left.
    Continue,
}

/// What a record without a value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tombstones {
    /// Skipped and counted.
    #[default]
    Skip,
    /// A dead letter.
    DeadLetter,
}

/// `[value]`: how a record's value is read.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValueConfig {
    /// Avro or JSON.
    pub format: ValueFormat,
    /// A folder of Avro schemas (`.avsc`), relative to the connector file, instead of the registry. Needs `schema_header`.
    #[serde(default)]
    pub schemas: Option<PathBuf>,
    /// The header that names a schema of the folder: the record's full name or the file's name, with or without `.avsc`.
    #[serde(default)]
    pub schema_header: Option<String>,
    /// The header that carries the registry's schema id, instead of the first five bytes of the value.
    #[serde(default)]
    pub schema_id_header: Option<String>,
}

/// The format of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ValueFormat {
    /// Avro, binary encoding.
    Avro,
    /// A JSON object, typed by the table's columns.
    Json,
}

/// `[table]`: where rows go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// `dataset.table` or `project.dataset.table`; `${topic}` stands for the record's topic, made fit for a table's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Tables by topic, where `name` does not do.
    #[serde(default)]
    pub by_topic: BTreeMap<String, String>,
    /// Create the table from the schema when it is missing.
    #[serde(default)]
    pub create: bool,
    /// Partitioning of a created table.
    #[serde(default)]
    pub partition: Option<PartitionBy>,
    /// Clustering of a created table: at most four columns.
    #[serde(default)]
    pub cluster: Vec<String>,
    /// What may be changed in an existing table.
    #[serde(default)]
    pub evolve: Evolve,
    /// Columns about the record itself, named `kafka_topic` and so on (`schema_id` and `ingested_at` as they are).
    #[serde(default)]
    pub metadata: Vec<MetadataField>,
    /// Other names for metadata columns.
    #[serde(default)]
    #[schemars(extend("propertyNames" = { "$ref": "#/$defs/MetadataField" }))]
    pub metadata_names: BTreeMap<MetadataField, String>,
    /// A null inside an array.
    #[serde(default)]
    pub repeated_null: RepeatedNull,
    /// A record type that contains itself.
    #[serde(default)]
    pub recursive: RecursiveAs,
    /// A union of several types.
    #[serde(default)]
    pub unions: UnionsAs,
    /// Columns stated by hand, by field name (`a.b` for a nested one).
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnOverride>,
}

/// `[table] partition`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionBy {
    /// A top-level DATE, DATETIME or TIMESTAMP column; without one, the time of arrival.
    #[serde(default)]
    pub by: Option<String>,
    /// The length of a partition.
    #[serde(default)]
    pub every: PartitionEvery,
    /// When partitions expire.
    #[serde(default)]
    pub expire: Option<HumanDuration>,
    /// Queries must filter by the partition column.
    #[serde(default)]
    pub require_filter: bool,
}

/// The length of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum PartitionEvery {
    Hour,
    #[default]
    Day,
    Month,
    Year,
}

/// What may be changed in an existing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Evolve {
    /// Nothing: a schema with columns that the table lacks holds.
    Never,
    /// Missing columns are added.
    #[default]
    Add,
    /// Missing columns are added, and REQUIRED is relaxed to NULLABLE where a schema lacks the field or may be null.
    AddAndRelax,
}

/// A column about the record itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MetadataField {
    /// `kafka_topic` STRING.
    Topic,
    /// `kafka_partition` INT64.
    Partition,
    /// `kafka_offset` INT64.
    Offset,
    /// `kafka_timestamp` TIMESTAMP.
    Timestamp,
    /// `kafka_key` BYTES.
    Key,
    /// `kafka_headers` REPEATED RECORD {key STRING, value BYTES}.
    Headers,
    /// `schema_id` STRING: the registry's id, or the local schema's content hash.
    SchemaId,
    /// `ingested_at` TIMESTAMP: when the worker decoded the record.
    IngestedAt,
}

impl MetadataField {
    /// The column's name unless renamed.
    pub const fn default_name(self) -> &'static str {
        match self {
            Self::Topic => "kafka_topic",
            Self::Partition => "kafka_partition",
            Self::Offset => "kafka_offset",
            Self::Timestamp => "kafka_timestamp",
            Self::Key => "kafka_key",
            Self::Headers => "kafka_headers",
            Self::SchemaId => "schema_id",
            Self::IngestedAt => "ingested_at",
        }
    }
}

/// A null inside an array: BigQuery's arrays take none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RepeatedNull {
    /// The record is a dead letter.
    #[default]
    Refuse,
    /// Elements are wrapped: REPEATED RECORD {value}. Also for arrays of arrays.
    Wrap,
}

/// A record type that contains itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RecursiveAs {
    /// The schema cannot be mapped; its records are dead letters.
    #[default]
    Refuse,
    /// The field becomes a JSON column.
    Json,
}

/// A union of several types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnionsAs {
    /// A RECORD with one nullable field per branch, named by the branch's type.
    #[default]
    Record,
    /// A JSON column.
    Json,
}

/// `[table.columns] x = { type, unit, mode, name }`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ColumnOverride {
    /// BigQuery's name of the type, such as `TIMESTAMP`, `NUMERIC(20, 4)`, `JSON`.
    #[serde(rename = "type")]
    pub ty: Option<String>,
    /// What a whole number counts, where the type is a time.
    pub unit: Option<TimeUnit>,
    /// `NULLABLE`, `REQUIRED` or `REPEATED`.
    pub mode: Option<String>,
    /// The column's name, where it is not the field's.
    pub name: Option<String>,
}

/// What a whole number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum TimeUnit {
    D,
    S,
    Ms,
    Us,
    Ns,
}

/// `[delivery]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryConfig {
    /// At least once, or exactly once: each partition then writes to a stream of its own (docs/durability.md).
    pub guarantee: Guarantee,
    /// With exactly once: what happens when nobody can know which rows of a partition's last appends landed.
    pub on_lost_stream: OnLostStream,
    /// How long a row may wait for others.
    pub linger: HumanDuration,
    /// The size at which a batch is sent: 64 KiB to 9 MiB.
    pub batch_bytes: ByteSize,
    /// The number of rows at which a batch is sent.
    pub batch_rows: u32,
}

impl Default for DeliveryConfig {
    fn default() -> Self {
        Self {
            guarantee: Guarantee::AtLeastOnce,
            on_lost_stream: OnLostStream::Hold,
            linger: HumanDuration::from_millis(200),
            batch_bytes: ByteSize::mib(1),
            batch_rows: 50_000,
        }
    }
}

/// What is promised about a row's number of copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// Every record is in the table; after a crash or a lost answer some may be there twice.
    AtLeastOnce,
    /// Every record is in the table once.
    ExactlyOnce,
}

/// What happens when nobody can know which rows of a partition's last appends landed: BigQuery forgot its stream (after three days without
/// use, or with its table), the stream has rows that no append of its owner's explains, or the metadata of the group's offset are damaged
/// or another program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnLostStream {
    /// The partition holds and says what is not known, until this is set to `at-least-once`.
    #[default]
    Hold,
    /// Send those rows again, count them as possible duplicates, and go on.
    AtLeastOnce,
}

/// `[errors]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorsConfig {
    /// What happens to a record that cannot become a row.
    pub bad_records: BadRecords,
    /// The topic that takes them; `<connector>.dead` by default. It must exist.
    pub dead_letter_topic: Option<String>,
    /// A dead letter too large for its topic: leave out optional headers, then the value, instead of holding the partition.
    pub truncate_oversized: bool,
    /// The share of the last 1,000 records, judged from 100 on, above which dead letters hold the connector instead of emptying the topic
    /// into the dead-letter topic; 1 never holds. Each shard of each worker judges its own records.
    pub max_dead_share: f64,
}

impl Default for ErrorsConfig {
    fn default() -> Self {
        Self {
            bad_records: BadRecords::default(),
            dead_letter_topic: None,
            truncate_oversized: false,
            // A wrong schema or rule kills nearly all records, bad producers a few in a hundred: half lies far from both.
            max_dead_share: 0.5,
        }
    }
}

/// What happens to a record that cannot become a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BadRecords {
    /// It goes to the dead-letter topic as it is, with headers that say why.
    #[default]
    DeadLetter,
    /// Its partition holds until the record is dealt with.
    Stop,
    /// It is dropped and counted.
    Skip,
}
