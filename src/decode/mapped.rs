//! Which column each field of a schema becomes: the tree between an Avro schema and both the table's columns and the plan.

use std::collections::BTreeSet;

use crate::config::{RecursiveAs, RepeatedNull, TimeUnit, UnionsAs};
use crate::table::{Column, ColumnType, MAX_COLUMNS, MAX_RECORD_DEPTH, Mode, check_column_name, same_name};

use super::options::{DecodeOptions, Override, Unmappable};
use super::shape::{Shape, ShapeId, Shapes, TimeKind};

/// The longest path of a field, bytes: every column keeps its own. BigQuery's names have up to 300 characters, each in up to 15 levels.
const MAX_PATH_BYTES: usize = 8 * 1_024;

/// What stands before a value because of a union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Branch {
    /// No union.
    Plain,
    /// A union of null, at this index, and the value.
    Nullable(u8),
    /// A union of the value alone.
    Lone,
}

/// A field and the column that it becomes.
#[derive(Debug, Clone)]
pub(super) struct Mapped {
    /// The column's name; empty where it has none.
    pub name: String,
    /// The field's path, dotted.
    pub path: String,
    pub doc: Option<String>,
    pub branch: Branch,
    pub required: bool,
    pub read: Read,
}

/// How a field is read, and what it becomes.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// No column: null, records without fields, and arrays of them.
    Skip(ShapeId),
    /// One value of this type. The unit says what a whole number counts.
    Scalar {
        shape: ShapeId,
        ty: ColumnType,
        unit: Option<TimeUnit>,
    },
    /// JSON text.
    Json(ShapeId),
    Record(Vec<Mapped>),
    /// REPEATED; `wrapped` elements are RECORD{value}.
    Array {
        item: Box<Mapped>,
        wrapped: bool,
        least_bytes: usize,
    },
    /// REPEATED RECORD{key, value}; the value may have no column.
    Map {
        value: Box<Mapped>,
    },
    /// RECORD with a nullable field for each branch.
    Union(Vec<Mapped>),
}

impl Mapped {
    pub const fn has_column(&self) -> bool {
        !matches!(self.read, Read::Skip(_))
    }

    const fn is_repeated(&self) -> bool {
        matches!(self.read, Read::Array { .. } | Read::Map { .. })
    }

    /// The paths of this field and of those within it, as `[table.columns]` may state them.
    pub fn paths<'m>(&'m self, found: &mut BTreeSet<&'m str>) {
        found.insert(&self.path);
        match &self.read {
            Read::Record(fields) | Read::Union(fields) => fields.iter().for_each(|field| field.paths(found)),
            Read::Array { item: inner, .. } | Read::Map { value: inner } => inner.paths(found),
            Read::Skip(_) | Read::Scalar { .. } | Read::Json(_) => {}
        }
    }

    pub fn column(&self) -> Column {
        let fields = |of: &[Self]| of.iter().filter(|m| m.has_column()).map(Self::column).collect::<Vec<_>>();
        let ty = match &self.read {
            Read::Skip(_) | Read::Json(_) => ColumnType::Json,
            Read::Scalar { ty, .. } => ty.clone(),
            Read::Record(of) | Read::Union(of) => ColumnType::Struct(fields(of)),
            Read::Array { item, wrapped: false, .. } => item.column().ty,
            Read::Array { item, wrapped: true, .. } => ColumnType::Struct(vec![item.column()]),
            Read::Map { value } => {
                let key = Column { name: "key".to_owned(), ty: ColumnType::String(None), mode: Mode::Nullable, description: None };
                ColumnType::Struct(std::iter::once(key).chain(fields(std::slice::from_ref(value))).collect())
            }
        };
        let mode = match (self.is_repeated(), self.required) {
            (true, _) => Mode::Repeated,
            (false, true) => Mode::Required,
            (false, false) => Mode::Nullable,
        };
        let description = self.doc.clone().filter(|d| !d.is_empty());
        Column { name: self.name.clone(), ty, mode, description }
    }
}

/// The top-level fields of a schema: a record's own, or one named `value`.
pub(super) fn map_schema(shapes: &Shapes, options: &DecodeOptions) -> Result<Vec<Mapped>, Unmappable> {
    let mut mapper = Mapper { shapes, options, open: Vec::new(), columns: 0 };
    let fields = match shapes.get(shapes.root) {
        Shape::Record(_) => mapper.fields(shapes.root, "", 0)?,
        _ => vec![mapper.field("value", "value", None, shapes.root, 0)?],
    };
    if !fields.iter().any(Mapped::has_column) {
        return Err(Unmappable::schema("the schema has no field that could be a column"));
    }
    check_names(&fields)?;
    Ok(fields)
}

struct Mapper<'s> {
    shapes: &'s Shapes,
    options: &'s DecodeOptions,
    open: Vec<ShapeId>,
    columns: usize,
}

impl Mapper<'_> {
    fn fields(&mut self, record: ShapeId, path: &str, depth: usize) -> Result<Vec<Mapped>, Unmappable> {
        let shapes = self.shapes;
        let Shape::Record(shape) = shapes.get(record) else { return Ok(Vec::new()) };
        self.open.push(record);
        let mut fields = Vec::with_capacity(shape.fields.len());
        for field in &shape.fields {
            fields.push(self.field(&field.name, &join(path, &field.name), field.doc.clone(), field.shape, depth)?);
        }
        self.open.pop();
        Ok(fields)
    }

    fn field(&mut self, name: &str, path: &str, doc: Option<String>, shape: ShapeId, depth: usize) -> Result<Mapped, Unmappable> {
        self.columns += 1;
        if self.columns > MAX_COLUMNS {
            return Err(Unmappable::schema(format!("the schema has more than BigQuery's {MAX_COLUMNS} columns, nested ones counted")));
        }
        if path.len() > MAX_PATH_BYTES {
            let start: String = path.chars().take(100).collect();
            return Err(Unmappable::schema(format!(
                "field `{start}...` stands so deep that its path has more than {MAX_PATH_BYTES} bytes"
            )));
        }
        let stated = self.options.overrides.get(path).cloned().unwrap_or_default();
        let (branch, inner) = self.branch(shape);
        let read = self.read(path, inner, &stated, depth)?;
        // What has no column is skipped with the union around it.
        let (branch, read) = if matches!(read, Read::Skip(_)) { (Branch::Plain, Read::Skip(shape)) } else { (branch, read) };
        let mapped = Mapped {
            name: stated.name.unwrap_or_else(|| name.to_owned()),
            path: path.to_owned(),
            doc,
            branch,
            required: stated.mode == Some(Mode::Required),
            read,
        };
        match (stated.mode, mapped.is_repeated()) {
            (Some(Mode::Repeated), false) => {
                Err(Unmappable::schema(format!("[table.columns] {path}: REPEATED is stated, but the field is no array")))
            }
            (Some(Mode::Nullable | Mode::Required), true) => {
                Err(Unmappable::schema(format!("[table.columns] {path}: the field is an array: its column is REPEATED")))
            }
            _ => Ok(mapped),
        }
    }

    /// Looks through unions that only say whether there is a value.
    fn branch(&self, shape: ShapeId) -> (Branch, ShapeId) {
        let Shape::Union(branches) = self.shapes.get(shape) else { return (Branch::Plain, shape) };
        let is_null = |id: &ShapeId| matches!(self.shapes.get(*id), Shape::Null);
        match branches.as_slice() {
            [null, value] if is_null(null) && !is_null(value) => (Branch::Nullable(0), *value),
            [value, null] if is_null(null) && !is_null(value) => (Branch::Nullable(1), *value),
            [value] => (Branch::Lone, *value),
            _ => (Branch::Plain, shape),
        }
    }

    fn read(&mut self, path: &str, shape: ShapeId, stated: &Override, depth: usize) -> Result<Read, Unmappable> {
        let shapes = self.shapes;
        if stated.ty == Some(ColumnType::Json) && !matches!(shapes.get(shape), Shape::Null | Shape::String) {
            return Ok(Read::Json(shape));
        }
        match shapes.get(shape) {
            Shape::Null => Ok(Read::Skip(shape)),
            Shape::Array(item) => self.array(path, shape, *item, stated, depth),
            Shape::Map(value) => {
                self.refuse_type(path, stated)?;
                self.check_depth(path, depth)?;
                let value = self.field("value", &join(path, "value"), None, *value, depth + 1)?;
                Ok(Read::Map { value: Box::new(value) })
            }
            Shape::Record(record) => {
                self.refuse_type(path, stated)?;
                if self.open.contains(&shape) {
                    return match self.options.recursive {
                        RecursiveAs::Json => Ok(Read::Json(shape)),
                        RecursiveAs::Refuse => Err(Unmappable::schema(format!(
                            "field `{path}` is a `{}` within itself: BigQuery has no recursive columns; set `recursive = \"json\"` under [table]",
                            record.name
                        ))),
                    };
                }
                self.check_depth(path, depth)?;
                let fields = self.fields(shape, path, depth + 1)?;
                self.record_of(fields, shape, Read::Record)
            }
            Shape::Union(_) if self.options.unions == UnionsAs::Json => Ok(Read::Json(shape)),
            Shape::Union(branches) => {
                self.refuse_type(path, stated)?;
                self.check_depth(path, depth)?;
                let names = branch_names(shapes, branches);
                let mut mapped = Vec::with_capacity(branches.len());
                for (branch, name) in branches.iter().zip(names) {
                    mapped.push(self.field(&name, &join(path, &name), None, *branch, depth + 1)?);
                }
                self.record_of(mapped, shape, Read::Union)
            }
            Shape::Duration => {
                self.refuse_type(path, stated)?;
                self.check_depth(path, depth)?;
                let part = |name: &str| Column { name: name.to_owned(), ty: ColumnType::Int64, mode: Mode::Nullable, description: None };
                Ok(Read::Scalar { shape, ty: ColumnType::Struct(["months", "days", "millis"].map(part).to_vec()), unit: None })
            }
            scalar => {
                let ty = match &stated.ty {
                    Some(ty) => ty.clone(),
                    None => natural_type(scalar, path)?,
                };
                Ok(Read::Scalar { shape, ty, unit: stated.unit })
            }
        }
    }

    fn array(&mut self, path: &str, shape: ShapeId, item: ShapeId, stated: &Override, depth: usize) -> Result<Read, Unmappable> {
        let item_stated = Override { mode: None, name: None, ..stated.clone() };
        let (branch, inner) = self.branch(item);
        let nullable = matches!(branch, Branch::Nullable(_));
        let nested = matches!(self.shapes.get(inner), Shape::Array(_) | Shape::Map(_));
        let wrapped = self.options.repeated_null == RepeatedNull::Wrap && (nullable || nested);
        if nested && !wrapped {
            return Err(Unmappable::schema(format!(
                "field `{path}` is an array of arrays: BigQuery has none; set `repeated_null = \"wrap\"` under [table] for RECORDs around the inner ones"
            )));
        }
        if wrapped {
            self.check_depth(path, depth)?;
        }
        let read = self.read(path, inner, &item_stated, depth + usize::from(wrapped))?;
        if matches!(read, Read::Skip(_)) {
            return Ok(Read::Skip(shape));
        }
        let name = if wrapped { "value".to_owned() } else { String::new() };
        let item = Mapped { name, path: path.to_owned(), doc: None, branch, required: false, read };
        Ok(Read::Array {
            item: Box::new(item),
            wrapped,
            least_bytes: self.shapes.least_bytes(inner).max(usize::from(branch != Branch::Plain)),
        })
    }

    fn record_of(&self, fields: Vec<Mapped>, shape: ShapeId, make: fn(Vec<Mapped>) -> Read) -> Result<Read, Unmappable> {
        if !fields.iter().any(Mapped::has_column) {
            return Ok(Read::Skip(shape));
        }
        check_names(&fields)?;
        Ok(make(fields))
    }

    fn refuse_type(&self, path: &str, stated: &Override) -> Result<(), Unmappable> {
        match &stated.ty {
            Some(ty) => Err(Unmappable::schema(format!(
                "[table.columns] {path}: {ty} is stated, but the field has fields of its own: state those, or JSON"
            ))),
            None => Ok(()),
        }
    }

    fn check_depth(&self, path: &str, depth: usize) -> Result<(), Unmappable> {
        if depth >= MAX_RECORD_DEPTH {
            return Err(Unmappable::schema(format!(
                "field `{path}` nests RECORD deeper than BigQuery's {MAX_RECORD_DEPTH} levels: state JSON for it"
            )));
        }
        Ok(())
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn check_names(fields: &[Mapped]) -> Result<(), Unmappable> {
    let named: Vec<&Mapped> = fields.iter().filter(|f| f.has_column()).collect();
    for (i, field) in named.iter().enumerate() {
        let rename = |e| Unmappable::schema(format!("field `{}`: {e}: rename it with `name` under [table.columns]", field.path));
        check_column_name(&field.name).map_err(rename)?;
        if let Some(other) = named[..i].iter().find(|o| same_name(&o.name, &field.name)) {
            return Err(rename(format!("its column has the name of field `{}`'s (case does not count)", other.path)));
        }
    }
    Ok(())
}

/// A branch is named by its type, or by its record's, enum's or fixed's short name; by the full one where short ones meet.
fn branch_names(shapes: &Shapes, branches: &[ShapeId]) -> Vec<String> {
    let short = |id: ShapeId| shapes.name(id).map_or_else(|| primitive_name(shapes.get(id)).to_owned(), |n| n.name().to_owned());
    let all: Vec<String> = branches.iter().map(|b| short(*b)).collect();
    let full = |id: ShapeId| shapes.name(id).map_or_else(|| short(id), |n| n.fullname(None).replace('.', "_"));
    all.iter().zip(branches).map(|(n, b)| if all.iter().filter(|o| same_name(o, n)).count() > 1 { full(*b) } else { n.clone() }).collect()
}

const fn primitive_name(shape: &Shape) -> &'static str {
    match shape {
        Shape::Null => "null",
        Shape::Boolean => "boolean",
        Shape::Int | Shape::Count { long: false, .. } => "int",
        Shape::Long | Shape::Count { long: true, .. } => "long",
        Shape::Float => "float",
        Shape::Double => "double",
        Shape::String | Shape::UuidText | Shape::ZonedTimestamp => "string",
        Shape::Array(_) => "array",
        Shape::Map(_) => "map",
        _ => "bytes",
    }
}

fn natural_type(shape: &Shape, path: &str) -> Result<ColumnType, Unmappable> {
    Ok(match shape {
        Shape::Boolean => ColumnType::Bool,
        Shape::Int | Shape::Long => ColumnType::Int64,
        Shape::Float | Shape::Double => ColumnType::Float64,
        Shape::Bytes | Shape::Fixed(_) => ColumnType::Bytes(None),
        Shape::Decimal { precision, scale, .. } => match (*precision, *scale) {
            (p, s) if s <= 9 && p.saturating_sub(s) <= 29 => ColumnType::Numeric(None),
            (p, s) if s <= 38 && p.saturating_sub(s) <= 38 => ColumnType::BigNumeric(None),
            (p, s) => {
                return Err(Unmappable::schema(format!(
                    "field `{path}` is a decimal({p}, {s}): BigQuery's widest, BIGNUMERIC, has 38 digits before and 38 behind the point; if its values fit, state `type = \"BIGNUMERIC\"` under [table.columns]"
                )));
            }
        },
        Shape::BigDecimal | Shape::VariableScaleDecimal => ColumnType::BigNumeric(None),
        Shape::Count { kind, .. } => match kind {
            TimeKind::Date => ColumnType::Date,
            TimeKind::Time => ColumnType::Time,
            TimeKind::Moment => ColumnType::Timestamp,
            TimeKind::Local => ColumnType::DateTime,
        },
        Shape::ZonedTimestamp => ColumnType::Timestamp,
        _ => ColumnType::String(None),
    })
}
