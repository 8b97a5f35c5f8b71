//! Mapped fields and a table's columns to operations: decides for each field whether its column takes it without loss.

use crate::table::{Column, ColumnType, LaidColumn, Layout, Mode, WireForm, accepts, same_name};

use super::decimal::DecimalColumn;
use super::mapped::{Branch, Mapped, Read};
use super::ops::{ArrayOp, Code, MapOp, Op, Scalar, TimeTo, Union};
use super::options::Unmappable;
use super::shape::{Shape, ShapeId, Shapes};
use super::writer::Tag;

/// Compiles the fields of one schema.
pub(super) struct Compiler<'s> {
    pub shapes: &'s Shapes,
    pub layout: &'s Layout,
    /// The table's partition column.
    pub partition: Option<&'s str>,
    pub paths: Vec<String>,
}

impl Compiler<'_> {
    /// One operation for each field that takes bytes, in the schema's order. `others`: names of this level that something else fills.
    pub fn fields(
        &mut self,
        fields: &[Mapped],
        table: &[Column],
        laid: &[LaidColumn],
        others: &[String],
        top: bool,
    ) -> Result<Box<[Op]>, Unmappable> {
        let filled =
            |name: &str| fields.iter().any(|f| f.has_column() && same_name(&f.name, name)) || others.iter().any(|o| same_name(o, name));
        if let Some(column) = table.iter().find(|c| c.mode == Mode::Required && !filled(&c.name)) {
            return Err(Unmappable::conflict(format!(
                "column `{}` is REQUIRED and the schema has no such field: make it NULLABLE, or set `evolve = \"add-and-relax\"` under [table]",
                column.name
            )));
        }
        // What is neither read nor written is no operation: an array's elements would each cost as much as the schema is long.
        let idle = |field: &&Mapped| matches!(field.read, Read::Skip(shape) if self.shapes.takes_nothing(shape));
        let working: Vec<&Mapped> = fields.iter().filter(|field| !idle(field)).collect();
        working.into_iter().map(|field| self.field(field, table, laid, top)).collect()
    }

    fn field(&mut self, field: &Mapped, table: &[Column], laid: &[LaidColumn], top: bool) -> Result<Op, Unmappable> {
        if let Read::Skip(shape) = field.read {
            return Ok(self.op(field, Code::Skip(shape), Tag::default()).seal());
        }
        let missing = |what: &str| Unmappable::missing(format!("{what} lacks column `{}` (field `{}`)", field.name, field.path));
        let column = table.iter().find(|c| same_name(&c.name, &field.name)).ok_or_else(|| missing("the table"))?;
        let place = laid.iter().find(|c| same_name(&c.name, &field.name)).ok_or_else(|| missing("the row's layout"))?;
        let wanted = field.column();
        if (column.mode == Mode::Repeated) != (wanted.mode == Mode::Repeated) || !accepts(&column.ty, &wanted.ty) {
            return Err(conflict(field, &wanted, column));
        }
        let mut op = self.value(field, &wanted, column, place)?;
        op.partition = top && self.partition.is_some_and(|p| same_name(p, &field.name));
        op.required = column.mode == Mode::Required;
        Ok(op.seal())
    }

    fn op(&mut self, field: &Mapped, code: Code, tag: Tag) -> Op {
        let union = match field.branch {
            Branch::Plain => Union::No,
            Branch::Nullable(null) => Union::Nullable(null),
            Branch::Lone => Union::Lone,
        };
        self.paths.push(field.path.clone());
        Op::new(code, tag, union, self.paths.len() as u32 - 1)
    }

    /// The operation for a value of `field` in `column`, REPEATED or not.
    fn value(&mut self, field: &Mapped, wanted: &Column, column: &Column, place: &LaidColumn) -> Result<Op, Unmappable> {
        let form = WireForm::of(&column.ty, self.layout.text_literals);
        let message = Tag::new(place.number, 2);
        let inner: &[Column] = if let ColumnType::Struct(inner) = &column.ty { inner } else { &[] };
        let code = match &field.read {
            Read::Skip(shape) => Code::Skip(*shape),
            Read::Json(shape) => Code::Json(*shape),
            Read::Record(fields) => Code::Record(self.fields(fields, inner, &place.children, &[], false)?),
            Read::Union(branches) => {
                if let Some(required) = inner.iter().find(|c| c.mode == Mode::Required) {
                    return Err(Unmappable::conflict(format!(
                        "column `{}.{}` is REQUIRED: a union fills one of its branches only",
                        column.name, required.name
                    )));
                }
                Code::Union(branches.iter().map(|b| self.field(b, inner, &place.children, false)).collect::<Result<_, _>>()?)
            }
            Read::Array { item, wrapped, least_bytes } => {
                let (mut item_op, wrapper) = if *wrapped {
                    (self.field(item, inner, &place.children, false)?, Some(message))
                } else {
                    (self.value(item, &item.column(), column, place)?, None)
                };
                let packed = (!wrapped && form.is_packed()).then_some(message);
                if packed.is_some() {
                    item_op.tag = Tag::default();
                }
                Code::Array(Box::new(ArrayOp { item: item_op, packed, wrapper, least_bytes: *least_bytes }))
            }
            Read::Map { value } => {
                let key = place.child("key").ok_or_else(|| Unmappable::missing(format!("the row's layout lacks `{}.key`", field.name)))?;
                let op = self.field(value, inner, &place.children, false)?;
                Code::Map(Box::new(MapOp { entry: message, key: Tag::new(key.number, 2), value: op }))
            }
            Read::Scalar { shape, unit, .. } => self.scalar(*shape, *unit, place).ok_or_else(|| {
                if unit.is_none() && matches!(wanted.ty, ColumnType::Date | ColumnType::Time | ColumnType::DateTime | ColumnType::Timestamp)
                {
                    Unmappable::schema(format!(
                        "[table.columns] {}: a whole number becomes {} only with `unit`, one of d, s, ms, us, ns",
                        field.path, wanted.ty
                    ))
                } else if accepts(&wanted.ty, &column.ty) {
                    Unmappable::schema(format!("field `{}` cannot become {}: it would be changed or cut", field.path, column.ty))
                } else {
                    conflict(field, wanted, column)
                }
            })?,
        };
        let wire_type = match form {
            WireForm::Double => 1,
            _ if matches!(code, Code::Array(_) | Code::Map(_)) => 2,
            WireForm::Bool | WireForm::Int32 | WireForm::Int64 => 0,
            WireForm::String | WireForm::Bytes | WireForm::Message => 2,
        };
        Ok(self.op(field, code, Tag::new(place.number, wire_type)))
    }

    /// How a value of this type is written into this column; `None` when it cannot be without loss.
    fn scalar(&self, shape: ShapeId, unit: Option<crate::config::TimeUnit>, place: &LaidColumn) -> Option<Code> {
        let literals = self.layout.text_literals;
        let decimal = || DecimalColumn::of(&place.ty, literals).map(Box::new);
        Some(match (self.shapes.get(shape), &place.ty) {
            (Shape::Boolean, ColumnType::Bool) => Code::Bool,
            (Shape::Int | Shape::Count { long: false, .. }, ColumnType::Int64) => Code::Int,
            (Shape::Long | Shape::Count { long: true, .. }, ColumnType::Int64) => Code::Long,
            (Shape::Int, ColumnType::Float64) => Code::IntDouble,
            (Shape::Float, ColumnType::Float64) => Code::Float,
            (Shape::Double, ColumnType::Float64) => Code::Double,
            (Shape::Int, ColumnType::Numeric(_) | ColumnType::BigNumeric(_)) => Code::Whole { long: false, column: decimal()? },
            (Shape::Long, ColumnType::Numeric(_) | ColumnType::BigNumeric(_)) => Code::Whole { long: true, column: decimal()? },
            (Shape::Int, ty) => count(false, unit?, TimeTo::of(ty, literals)?),
            (Shape::Long, ty) => count(true, unit?, TimeTo::of(ty, literals)?),
            (Shape::Count { long, unit: own, .. }, ty) => count(*long, unit.unwrap_or(*own), TimeTo::of(ty, literals)?),
            (Shape::String | Shape::ZonedTimestamp, ColumnType::String(None)) => Code::Text,
            (Shape::String | Shape::ZonedTimestamp, ColumnType::String(Some(max_chars))) => Code::BoundedText { max_chars: *max_chars },
            (Shape::String | Shape::ZonedTimestamp, ty) => Code::Parse(Box::new(Scalar::of(ty, literals)?)),
            (Shape::Bytes, ColumnType::Bytes(max)) => Code::Bytes { max: max.unwrap_or(u64::MAX) },
            (Shape::Fixed(size), ColumnType::Bytes(max)) => Code::Fixed { size: *size, max: max.unwrap_or(u64::MAX) },
            (Shape::Enum(symbols), ColumnType::String(max)) => {
                if symbols.iter().any(|s| s.len() as u64 > max.unwrap_or(u64::MAX)) {
                    return None;
                }
                Code::Enum(symbols.iter().map(|s| encoded_symbol(place.number, s)).collect())
            }
            (Shape::Decimal { scale, size, .. }, _) => Code::Decimal { size: *size, scale: *scale as i64, column: decimal()? },
            (Shape::BigDecimal, _) => Code::BigDecimal(decimal()?),
            (Shape::VariableScaleDecimal, _) => Code::VariableScaleDecimal(decimal()?),
            (Shape::UuidText, ColumnType::String(max)) if max.is_none_or(|m| m >= 36) => Code::UuidText,
            (Shape::Uuid { counted }, ColumnType::String(max)) if max.is_none_or(|m| m >= 36) => Code::Uuid { counted: *counted },
            (Shape::Duration, ColumnType::Struct(_)) => {
                let tag = |name| place.child(name).map(|c| Tag::new(c.number, 0));
                Code::Duration(Box::new([tag("months")?, tag("days")?, tag("millis")?]))
            }
            _ => return None,
        })
    }
}

fn count(long: bool, unit: crate::config::TimeUnit, to: TimeTo) -> Code {
    if long && unit == crate::config::TimeUnit::Ms && to == TimeTo::Timestamp {
        Code::MillisTimestamp
    } else {
        Code::Count { long, unit, to }
    }
}

fn encoded_symbol(number: u32, symbol: &str) -> Box<[u8]> {
    let mut out = Vec::with_capacity(symbol.len() + 10);
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, &mut out);
    prost::encoding::encode_varint(symbol.len() as u64, &mut out);
    out.extend_from_slice(symbol.as_bytes());
    out.into()
}

fn conflict(field: &Mapped, wanted: &Column, column: &Column) -> Unmappable {
    let mode = |c: &Column| if c.mode == Mode::Repeated { "REPEATED " } else { "" };
    Unmappable::conflict(format!(
        "type conflict: field `{}` needs {}{}, column `{}` is {}{}: state the column under [table.columns], or use another table",
        field.path,
        mode(wanted),
        wanted.ty,
        column.name,
        mode(column),
        column.ty
    ))
}
