//! Binds a descriptor to a table's columns: names, types, modes (supported-data-types); the service's words when they do not fit.

use std::collections::HashMap;

use super::descriptor::{Descriptor, DescriptorProto, FieldProto, LABEL_REPEATED, Named, Names, proto_type, resolve};
use super::plan::{FieldPlan, MessagePlan, NO_COLUMN, PartitionBounds, Proto, Target};
use crate::embedded::bigquery::schema::column::same_name;
use crate::embedded::bigquery::schema::{Column, ColumnType, Mode, Schema};
use crate::embedded::bigquery::values::decimal::DecimalLimits;

/// Why a descriptor does not fit a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Fields without a column: SCHEMA_MISMATCH_EXTRA_FIELDS.
    ExtraFields(String),
    /// Anything else: INVALID_ARGUMENT without StorageError.
    Incompatible(String),
}

/// What the table adds to its columns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TableTraits {
    /// Index of the time partitioning column.
    pub partition_column: Option<usize>,
    /// It has a primary key: `_CHANGE_TYPE` is a field.
    pub primary_key: bool,
    /// Fields that a row leaves unset get their column's default.
    pub fill_defaults: bool,
}

/// The plan of a descriptor for a table, or what does not fit.
pub(crate) fn bind(descriptor: &Descriptor, schema: &Schema, traits: TableTraits) -> Result<MessagePlan, Misfit> {
    let names = descriptor.names();
    let mut binder = Binder { names: &names, traits, incompatible: Vec::new(), extra: Vec::new(), open: Vec::new() };
    let root_name = format!(".{}", descriptor.root.name());
    let plan = binder.message(&descriptor.root, &root_name, &schema.columns, "")?;
    if !binder.extra.is_empty() {
        return Err(Misfit::ExtraFields(format!(
            "Input schema has more fields than BigQuery schema, extra fields: '{}'",
            binder.extra.join(",")
        )));
    }
    if !binder.incompatible.is_empty() {
        let list = binder.incompatible.join(",");
        let text = format!("Found incompatible fields: '{list}' and/or mismatch fields, extra proto fields: '' extra bq fields: ''");
        return Err(Misfit::Incompatible(text));
    }
    Ok(plan)
}

struct Binder<'n, 'a> {
    names: &'n Names<'a>,
    traits: TableTraits,
    incompatible: Vec<String>,
    extra: Vec<String>,
    open: Vec<String>,
}

impl<'a> Binder<'_, 'a> {
    fn message(&mut self, message: &DescriptorProto, full: &str, columns: &[Column], path: &str) -> Result<MessagePlan, Misfit> {
        if self.open.iter().any(|open| open == full) {
            return Err(Misfit::Incompatible(format!("Recursive type is not supported: {}", &full[1..])));
        }
        self.open.push(full.to_owned());
        let mut plan = MessagePlan { columns: columns.len(), ..MessagePlan::default() };
        let mut bound = vec![false; columns.len()];
        for field in &message.field {
            let name = field.options.as_ref().and_then(|o| o.column_name.as_deref()).unwrap_or(field.name());
            let shown = format!("{path}{name}");
            if path.is_empty()
                && self.traits.primary_key
                && let Some(pseudo) = pseudo_column(field, name)
            {
                plan.fields.push(pseudo);
                continue;
            }
            let Some((index, column)) = columns.iter().enumerate().find(|(_, c)| same_name(&c.name, name)) else {
                self.extra.push(shown);
                continue;
            };
            if std::mem::replace(&mut bound[index], true) {
                return Err(Misfit::Incompatible(format!("Invalid proto schema: two fields are bound to the column {shown}.")));
            }
            let repeated = field.label() == LABEL_REPEATED;
            let proto = if repeated == (column.mode == Mode::Repeated) { self.field_type(field, full, column, &shown)? } else { None };
            let Some(proto) = proto else {
                self.incompatible.push(shown);
                continue;
            };
            let at_partition = path.is_empty() && self.traits.partition_column == Some(index);
            plan.fields.push(FieldPlan {
                number: field.number().unsigned_abs(),
                column: index,
                path: shown,
                proto,
                target: target(column, at_partition),
                repeated,
                required: column.mode == Mode::Required
                    && field.default_value.is_none()
                    && !(self.traits.fill_defaults && column.default.is_some()),
                required_bit: 0,
                proto_default: field.default_value.clone(),
            });
        }
        for (column, bound) in columns.iter().zip(bound) {
            if column.mode == Mode::Required && !bound && column.default.is_none() {
                return Err(Misfit::Incompatible(format!("The required field {path}{} is missing in the proto message.", column.name)));
            }
        }
        self.open.pop();
        plan.index();
        Ok(plan)
    }

    /// The field's type when the column takes it.
    fn field_type(&mut self, field: &FieldProto, scope: &str, column: &Column, path: &str) -> Result<Option<Proto>, Misfit> {
        use proto_type as p;
        let kind = column.kind;
        if let Some(type_name) = field.type_name.as_deref() {
            let Some((full, named)) = resolve(type_name, scope, self.names) else { return Ok(None) };
            return match named {
                Named::Enum(values) if matches!(kind, ColumnType::Int64 | ColumnType::String) => {
                    let names: HashMap<i32, String> = values.value.iter().map(|v| (v.number(), v.name().to_owned())).collect();
                    Ok(Some(Proto::Enum(names)))
                }
                Named::Enum(_) => Ok(None),
                Named::Message(message) => self.nested(message, full, column, path),
            };
        }
        Ok(scalar(field.r#type()).filter(|_| takes(kind, field.r#type(), column.picoseconds) && field.r#type() != p::ENUM))
    }

    fn nested(&mut self, message: &'a DescriptorProto, full: &str, column: &Column, path: &str) -> Result<Option<Proto>, Misfit> {
        let inner = format!("{path}.");
        match column.kind {
            ColumnType::Record => {
                let plan = self.message(message, full, &column.fields, &inner)?;
                Ok(Some(Proto::Message(Box::new(plan))))
            }
            ColumnType::Range => {
                let end = |name: &str| Column {
                    name: name.to_owned(),
                    kind: column.range_element.unwrap_or(ColumnType::Date),
                    mode: Mode::Nullable,
                    range_element: None,
                    default: None,
                    ..column.clone()
                };
                let plan = self.message(message, full, &[end("start"), end("end")], &inner)?;
                Ok(Some(Proto::Message(Box::new(plan))))
            }
            ColumnType::Timestamp | ColumnType::Interval if is_seconds_nanos(message) => Ok(Some(Proto::SecondsNanos)),
            kind => Ok(wrapped(message).filter(|inner| wrapper_takes(kind, *inner)).and_then(scalar).map(|p| Proto::Wrapper(Box::new(p)))),
        }
    }
}

fn pseudo_column(field: &FieldProto, name: &str) -> Option<FieldPlan> {
    let target = match name.to_ascii_uppercase().as_str() {
        "_CHANGE_TYPE" => Target::ChangeType,
        "_CHANGE_SEQUENCE_NUMBER" => Target::ChangeSequence,
        _ => return None,
    };
    (field.r#type() == proto_type::STRING && field.label() != LABEL_REPEATED).then(|| FieldPlan {
        number: field.number().unsigned_abs(),
        column: NO_COLUMN,
        path: name.to_owned(),
        proto: Proto::Text,
        required: matches!(target, Target::ChangeType),
        target,
        repeated: false,
        required_bit: 0,
        proto_default: None,
    })
}

fn target(column: &Column, at_partition: bool) -> Target {
    let decimal = match column.kind {
        ColumnType::Numeric | ColumnType::Bignumeric => column.decimal_limits(),
        _ => DecimalLimits { type_scale: 9, parameters: None },
    };
    Target::Column { kind: column.kind, max_length: column.max_length, decimal, bounds: at_partition.then_some(PartitionBounds) }
}

fn scalar(kind: i32) -> Option<Proto> {
    use proto_type as p;
    Some(match kind {
        p::DOUBLE => Proto::Double,
        p::FLOAT => Proto::Float,
        p::INT64 => Proto::Int64,
        p::INT32 => Proto::Int32,
        p::UINT64 => Proto::UInt64,
        p::UINT32 => Proto::UInt32,
        p::BOOL => Proto::Bool,
        p::STRING => Proto::Text,
        p::BYTES => Proto::Bytes,
        // sint*, fixed*, sfixed*: not listed, refused.
        _ => return None,
    })
}

/// The table of supported-data-types, scalars only.
fn takes(column: ColumnType, field: i32, picoseconds: bool) -> bool {
    use proto_type as p;
    let list: &[i32] = match column {
        ColumnType::Bool => &[p::BOOL, p::INT32, p::INT64, p::UINT32, p::UINT64],
        ColumnType::Int64 => &[p::INT32, p::INT64, p::UINT32],
        ColumnType::Float64 => &[p::DOUBLE, p::FLOAT],
        ColumnType::Numeric | ColumnType::Bignumeric => {
            &[p::BYTES, p::STRING, p::INT32, p::INT64, p::UINT32, p::UINT64, p::DOUBLE, p::FLOAT]
        }
        ColumnType::String | ColumnType::Json | ColumnType::Geography | ColumnType::Interval => &[p::STRING],
        ColumnType::Bytes => &[p::BYTES, p::STRING],
        ColumnType::Date => &[p::INT32, p::INT64, p::STRING],
        ColumnType::Time | ColumnType::Datetime => &[p::INT64, p::STRING],
        ColumnType::Timestamp if picoseconds => &[p::STRING],
        ColumnType::Timestamp => &[p::INT64, p::INT32, p::UINT32],
        ColumnType::Range | ColumnType::Record => &[],
    };
    list.contains(&field)
}

fn wrapper_takes(column: ColumnType, inner: i32) -> bool {
    use proto_type as p;
    match column {
        ColumnType::Bool => inner == p::BOOL,
        ColumnType::Int64 => matches!(inner, p::INT32 | p::INT64 | p::UINT32),
        ColumnType::Float64 => matches!(inner, p::DOUBLE | p::FLOAT),
        ColumnType::Numeric | ColumnType::Bignumeric | ColumnType::Bytes => inner == p::BYTES,
        ColumnType::String => inner == p::STRING,
        _ => false,
    }
}

/// The type of `value` when a message looks like a google.protobuf wrapper that a client has inlined.
fn wrapped(message: &DescriptorProto) -> Option<i32> {
    match &message.field[..] {
        [value] if value.name() == "value" && value.number() == 1 && message.name().ends_with("Value") => Some(value.r#type()),
        _ => None,
    }
}

fn is_seconds_nanos(message: &DescriptorProto) -> bool {
    matches!(&message.field[..], [s, n] if s.name() == "seconds" && s.number() == 1 && s.r#type() == proto_type::INT64
        && n.name() == "nanos" && n.number() == 2 && n.r#type() == proto_type::INT32)
}
