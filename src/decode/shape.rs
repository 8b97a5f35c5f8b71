//! An Avro schema as an arena: names resolved across its references, logical types read, recursion kept as an index.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, UuidSchema};

use crate::config::TimeUnit;

use super::options::Unmappable;
use super::{AvroSchema, ConnectNames};

/// Index into [`Shapes`].
pub(super) type ShapeId = usize;

/// What a count of time means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeKind {
    Date,
    Time,
    /// A moment: TIMESTAMP.
    Moment,
    /// Local date and time: DATETIME.
    Local,
}

/// How a type's bytes are read, and what they mean.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    /// Unscaled big-endian bytes; of a fixed size, or with a length.
    Decimal {
        precision: usize,
        scale: usize,
        size: Option<usize>,
    },
    /// `bytes` that hold unscaled `bytes` and a `long` scale.
    BigDecimal,
    /// Debezium's record of `int` scale and unscaled `bytes`.
    VariableScaleDecimal,
    UuidText,
    /// 16 bytes; with a length before them if `counted`.
    Uuid {
        counted: bool,
    },
    /// An `int` or `long` that counts time.
    Count {
        long: bool,
        kind: TimeKind,
        unit: TimeUnit,
    },
    /// An ISO 8601 text with a zone.
    ZonedTimestamp,
    /// 12 bytes: months, days, milliseconds, each little-endian.
    Duration,
    Record(RecordShape),
    Array(ShapeId),
    Map(ShapeId),
    Union(Vec<ShapeId>),
}

#[derive(Debug, Clone)]
pub(super) struct RecordShape {
    pub name: String,
    pub fields: Vec<FieldShape>,
    /// The types of the fields that take bytes: a record is skipped in time of its data, not of its schema.
    pub taking: Vec<ShapeId>,
}

#[derive(Debug, Clone)]
pub(super) struct FieldShape {
    pub name: String,
    /// No longer than a column's description: it is kept wherever the record is used.
    pub doc: Option<String>,
    pub shape: ShapeId,
}

/// BigQuery's longest column description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 1_024;

/// The most types that one schema may have in itself and its references.
const MAX_SHAPES: usize = 100_000;

/// All types of one schema.
#[derive(Debug, Clone)]
pub(super) struct Shapes {
    nodes: Vec<Shape>,
    /// A named type's short name, for the branches of unions.
    names: HashMap<ShapeId, Name>,
    /// What each type's values take.
    sizes: Vec<Size>,
    pub root: ShapeId,
}

/// What a type's values take.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    least_bytes: usize,
    /// Every value takes nothing. A record that is always within itself does not: no data can hold one.
    nothing: bool,
}

impl Shapes {
    pub fn of(schema: &AvroSchema) -> Result<Self, Unmappable> {
        let mut definitions = HashMap::new();
        for reference in schema.references.iter().chain([&schema.root]) {
            collect(reference, &mut definitions);
        }
        let shapes = Self { nodes: Vec::new(), names: HashMap::new(), sizes: Vec::new(), root: 0 };
        let mut builder = Builder { shapes, definitions, built: HashMap::new(), connect: &schema.connect_names };
        builder.shapes.root = builder.build(&schema.root, None)?;
        Ok(builder.shapes.measured())
    }

    /// With the sizes of all types: looked up for each array of each record, so they are not worked out then.
    fn measured(mut self) -> Self {
        let mut records = HashMap::new();
        self.sizes = (0..self.nodes.len()).map(|id| self.size(id, &mut records)).collect();
        for node in &mut self.nodes {
            if let Shape::Record(record) = node {
                let nothing = |id: ShapeId| self.sizes.get(id).is_some_and(|size| size.nothing);
                record.taking = record.fields.iter().map(|field| field.shape).filter(|id| !nothing(*id)).collect();
            }
        }
        self
    }

    pub fn get(&self, id: ShapeId) -> &Shape {
        self.nodes.get(id).unwrap_or(&Shape::Null)
    }

    /// The name of a named type.
    pub fn name(&self, id: ShapeId) -> Option<&Name> {
        self.names.get(&id)
    }

    /// Bytes of memory, roughly.
    pub fn size_bytes(&self) -> usize {
        self.nodes.iter().map(|n| size_of::<Shape>() + if let Shape::Record(r) = n { r.fields.len() * 104 } else { 0 }).sum()
    }

    /// The least bytes that a value takes: 0 only for null, records of nothing else, and empty fixed.
    pub fn least_bytes(&self, id: ShapeId) -> usize {
        self.sizes.get(id).map_or(0, |size| size.least_bytes)
    }

    /// Whether every value takes no bytes: there is nothing to read of it, however many there are.
    pub fn takes_nothing(&self, id: ShapeId) -> bool {
        self.sizes.get(id).is_some_and(|size| size.nothing)
    }

    fn size(&self, id: ShapeId, records: &mut HashMap<ShapeId, Size>) -> Size {
        let least_bytes = match self.get(id) {
            Shape::Null => 0,
            Shape::Fixed(n) | Shape::Decimal { size: Some(n), .. } => *n,
            Shape::Double => 8,
            Shape::Float => 4,
            Shape::Duration => 12,
            Shape::Uuid { .. } => 16,
            Shape::BigDecimal | Shape::VariableScaleDecimal => 2,
            Shape::Record(record) => {
                if let Some(&size) = records.get(&id) {
                    return size;
                }
                // A record within itself counts as nothing there; the sum is a lower bound all the same.
                records.insert(id, Size::default());
                let mut sum = Size { least_bytes: 0, nothing: true };
                for field in &record.fields {
                    let size = self.size(field.shape, records);
                    sum.least_bytes = sum.least_bytes.saturating_add(size.least_bytes);
                    sum.nothing &= size.nothing;
                }
                records.insert(id, sum);
                return sum;
            }
            _ => 1,
        };
        Size { least_bytes, nothing: least_bytes == 0 }
    }
}

/// Every named type that is defined somewhere in a schema.
fn collect<'s>(schema: &'s Schema, found: &mut HashMap<&'s Name, &'s Schema>) {
    match schema {
        Schema::Record(record) => {
            if found.insert(&record.name, schema).is_none() {
                record.fields.iter().for_each(|f| collect(&f.schema, found));
            }
        }
        Schema::Array(array) => collect(&array.items, found),
        Schema::Map(map) => collect(&map.types, found),
        Schema::Union(union) => union.variants().iter().for_each(|v| collect(v, found)),
        other => {
            if let Some(name) = other.name() {
                // A reference defines nothing.
                if !matches!(other, Schema::Ref { .. }) {
                    found.insert(name, other);
                }
            }
        }
    }
}

struct Builder<'s> {
    shapes: Shapes,
    definitions: HashMap<&'s Name, &'s Schema>,
    built: HashMap<String, ShapeId>,
    connect: &'s ConnectNames,
}

impl<'s> Builder<'s> {
    fn add(&mut self, shape: Shape) -> Result<ShapeId, Unmappable> {
        if self.shapes.nodes.len() >= MAX_SHAPES {
            return Err(Unmappable::schema(format!("the schema has more than {MAX_SHAPES} types")));
        }
        self.shapes.nodes.push(shape);
        Ok(self.shapes.nodes.len() - 1)
    }

    /// `place`: the record and field that this type stands in, for `connect.name`.
    fn build(&mut self, schema: &'s Schema, place: Option<(&str, &str)>) -> Result<ShapeId, Unmappable> {
        if let Some(name) = schema.name()
            && let Some(&known) = self.built.get(&name.fullname(None))
        {
            return Ok(known);
        }
        let connect = |primitive| place.and_then(|(record, field)| self.connect.get(record, field, primitive));
        let count = |long, kind, unit| Shape::Count { long, kind, unit };
        let shape = match schema {
            Schema::Null => Shape::Null,
            Schema::Boolean => Shape::Boolean,
            Schema::Int => match connect("int") {
                Some("io.debezium.time.Date") => count(false, TimeKind::Date, TimeUnit::D),
                Some("io.debezium.time.Time") => count(false, TimeKind::Time, TimeUnit::Ms),
                _ => Shape::Int,
            },
            Schema::Long => match connect("long") {
                Some("io.debezium.time.MicroTime") => count(true, TimeKind::Time, TimeUnit::Us),
                Some("io.debezium.time.NanoTime") => count(true, TimeKind::Time, TimeUnit::Ns),
                Some("io.debezium.time.Timestamp") => count(true, TimeKind::Moment, TimeUnit::Ms),
                Some("io.debezium.time.MicroTimestamp") => count(true, TimeKind::Moment, TimeUnit::Us),
                Some("io.debezium.time.NanoTimestamp") => count(true, TimeKind::Moment, TimeUnit::Ns),
                _ => Shape::Long,
            },
            Schema::Float => Shape::Float,
            Schema::Double => Shape::Double,
            Schema::Bytes => Shape::Bytes,
            Schema::String => match connect("string") {
                Some("io.debezium.time.ZonedTimestamp") => Shape::ZonedTimestamp,
                _ => Shape::String,
            },
            Schema::Fixed(fixed) => Shape::Fixed(fixed.size),
            Schema::Enum(symbols) => Shape::Enum(symbols.symbols.clone()),
            Schema::Decimal(decimal) => Shape::Decimal {
                precision: decimal.precision,
                scale: decimal.scale,
                size: match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                },
            },
            Schema::BigDecimal => Shape::BigDecimal,
            Schema::Uuid(UuidSchema::String) => Shape::UuidText,
            Schema::Uuid(UuidSchema::Bytes) => Shape::Uuid { counted: true },
            Schema::Uuid(UuidSchema::Fixed(_)) => Shape::Uuid { counted: false },
            Schema::Date => count(false, TimeKind::Date, TimeUnit::D),
            Schema::TimeMillis => count(false, TimeKind::Time, TimeUnit::Ms),
            Schema::TimeMicros => count(true, TimeKind::Time, TimeUnit::Us),
            Schema::TimestampMillis => count(true, TimeKind::Moment, TimeUnit::Ms),
            Schema::TimestampMicros => count(true, TimeKind::Moment, TimeUnit::Us),
            Schema::TimestampNanos => count(true, TimeKind::Moment, TimeUnit::Ns),
            Schema::LocalTimestampMillis => count(true, TimeKind::Local, TimeUnit::Ms),
            Schema::LocalTimestampMicros => count(true, TimeKind::Local, TimeUnit::Us),
            Schema::LocalTimestampNanos => count(true, TimeKind::Local, TimeUnit::Ns),
            Schema::Duration(_) => Shape::Duration,
            Schema::Record(record) => return self.record(record),
            Schema::Array(array) => Shape::Array(self.build(&array.items, place)?),
            Schema::Map(map) => Shape::Map(self.build(&map.types, place)?),
            Schema::Union(union) => Shape::Union(union.variants().iter().map(|v| self.build(v, place)).collect::<Result<_, _>>()?),
            Schema::Ref { name } => match self.definitions.get(name) {
                Some(definition) => return self.build(definition, place),
                None => {
                    return Err(Unmappable::schema(format!(
                        "the schema refers to `{}`, which neither it nor its references define",
                        name.fullname(None)
                    )));
                }
            },
        };
        let id = self.add(shape)?;
        if let Some(name) = schema.name() {
            self.built.insert(name.fullname(None), id);
            self.shapes.names.insert(id, name.clone());
        }
        Ok(id)
    }

    fn record(&mut self, record: &'s RecordSchema) -> Result<ShapeId, Unmappable> {
        let full_name = record.name.fullname(None);
        // The place is taken before the fields are built: a field may be of this very type.
        let id = self.add(Shape::Null)?;
        self.built.insert(full_name.clone(), id);
        self.shapes.names.insert(id, record.name.clone());
        let mut fields = Vec::with_capacity(record.fields.len());
        for field in &record.fields {
            let shape = self.build(&field.schema, Some((&full_name, &field.name)))?;
            let doc = field.doc.as_ref().map(|doc| doc.chars().take(MAX_DESCRIPTION_CHARS).collect());
            fields.push(FieldShape { name: field.name.clone(), doc, shape });
        }
        let types: Vec<&Shape> = fields.iter().map(|f| self.shapes.get(f.shape)).collect();
        let variable = full_name == "io.debezium.data.VariableScaleDecimal" && matches!(types.as_slice(), [Shape::Int, Shape::Bytes]);
        self.shapes.nodes[id] =
            if variable { Shape::VariableScaleDecimal } else { Shape::Record(RecordShape { name: full_name, fields, taking: Vec::new() }) };
        Ok(id)
    }
}
