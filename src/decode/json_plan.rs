//! Columns to a plan for JSON objects: which key goes to which column.

use std::collections::HashMap;

use crate::config::TimeUnit;
use crate::table::{Column, ColumnType, LaidColumn, Layout, Mode, WireForm, accepts, check_column_name, same_name};

use super::DecodeOptions;
use super::ops::Scalar;
use super::options::Unmappable;
use super::writer::Tag;

/// The columns of one level, by key.
#[derive(Debug)]
pub(super) struct Object {
    pub fields: Vec<Field>,
    /// Keys as the columns are spelled (or as `[table.columns]` renames them).
    by_key: HashMap<String, usize>,
    /// The same in lower case: BigQuery's names ignore case.
    by_lower_key: HashMap<String, usize>,
}

/// One column.
#[derive(Debug)]
pub(super) struct Field {
    pub tag: Tag,
    /// REPEATED: the tag of the packed block, if it is packed.
    pub repeated: Option<Option<Tag>>,
    pub required: bool,
    pub partition: bool,
    /// What a number counts, for dates and times.
    pub unit: Option<TimeUnit>,
    pub value: Value,
    pub path: u32,
}

/// What a column takes.
#[derive(Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    Object(Object),
}

impl Object {
    pub fn find(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).or_else(|| self.by_lower_key.get(&key.to_lowercase())).copied()
    }

    /// Bytes of memory, roughly.
    pub fn size_bytes(&self) -> usize {
        let keys: usize = self.by_key.keys().map(|k| 2 * k.len() + 160).sum();
        keys + self
            .fields
            .iter()
            .map(|f| size_of::<Field>() + if let Value::Object(o) = &f.value { o.size_bytes() } else { 0 })
            .sum::<usize>()
    }
}

/// Compiles the columns of one table.
pub(super) struct JsonCompiler<'s> {
    pub options: &'s DecodeOptions,
    pub layout: &'s Layout,
    pub partition: Option<&'s str>,
    pub paths: Vec<String>,
}

impl JsonCompiler<'_> {
    /// `path` is empty at the top, where metadata columns are none of the record's.
    pub fn object(&mut self, columns: &[Column], laid: &[LaidColumn], path: &str) -> Result<Object, Unmappable> {
        let mut object = Object { fields: Vec::new(), by_key: HashMap::new(), by_lower_key: HashMap::new() };
        for column in columns {
            if path.is_empty() && self.options.metadata.iter().any(|(_, name)| same_name(name, &column.name)) {
                continue;
            }
            let place = laid.iter().find(|c| same_name(&c.name, &column.name));
            let place = place.ok_or_else(|| Unmappable::missing(format!("the row's layout lacks column `{}`", column.name)))?;
            let renamed = self.key_of(path, &column.name);
            if renamed.is_none() && self.goes_elsewhere(columns, path, &column.name) {
                if column.mode == Mode::Required {
                    return Err(Unmappable::conflict(format!(
                        "column `{}` is REQUIRED, and [table.columns] gives the values of its key to another column: make it NULLABLE",
                        join(path, &column.name)
                    )));
                }
                continue;
            }
            let key = renamed.unwrap_or(&column.name).to_owned();
            let field = self.field(column, place, &join(path, &key), path.is_empty())?;
            object.by_key.insert(key.clone(), object.fields.len());
            object.by_lower_key.insert(key.to_lowercase(), object.fields.len());
            object.fields.push(field);
        }
        Ok(object)
    }

    /// Keys of this level that `[table.columns]` gives to a column of another name, and that column.
    fn renamed<'o>(&'o self, path: &str) -> impl Iterator<Item = (&'o str, &'o str)> {
        self.options.overrides.iter().filter_map(move |(at, stated)| {
            let (parent, key) = at.rsplit_once('.').unwrap_or(("", at));
            Some((key, stated.name.as_deref()?)).filter(|_| same_name(parent, path))
        })
    }

    /// The key whose values this column takes, where `[table.columns]` says so.
    fn key_of(&self, path: &str, column: &str) -> Option<&str> {
        self.renamed(path).find(|(_, name)| same_name(name, column)).map(|(key, _)| key)
    }

    /// Whether the values of a column's own key go to another one of these columns.
    fn goes_elsewhere(&self, columns: &[Column], path: &str, column: &str) -> bool {
        self.renamed(path).any(|(key, name)| same_name(key, column) && columns.iter().any(|other| same_name(&other.name, name)))
    }

    fn field(&mut self, column: &Column, place: &LaidColumn, path: &str, top: bool) -> Result<Field, Unmappable> {
        let form = WireForm::of(&column.ty, self.layout.text_literals);
        let repeated = column.mode == Mode::Repeated;
        let value = match &column.ty {
            ColumnType::Struct(inner) => Value::Object(self.object(inner, &place.children, path)?),
            ColumnType::Range(of) => {
                let bound = |name: &str| Column { name: name.to_owned(), ty: (**of).clone(), mode: Mode::Nullable, description: None };
                Value::Object(self.object(&["start", "end"].map(bound), &place.children, path)?)
            }
            scalar => match Scalar::of(scalar, self.layout.text_literals) {
                Some(scalar) => Value::Scalar(scalar),
                None => return Err(Unmappable::conflict(format!("column `{path}`: {scalar} cannot be written"))),
            },
        };
        let wire_type = match form {
            WireForm::Double => 1,
            WireForm::Bool | WireForm::Int32 | WireForm::Int64 => 0,
            WireForm::String | WireForm::Bytes | WireForm::Message => 2,
        };
        let packed = (repeated && form.is_packed()).then(|| Tag::new(place.number, 2));
        self.paths.push(path.to_owned());
        Ok(Field {
            tag: if packed.is_some() { Tag::default() } else { Tag::new(place.number, wire_type) },
            repeated: repeated.then_some(packed),
            required: column.mode == Mode::Required,
            partition: top && self.partition.is_some_and(|p| same_name(p, &column.name)),
            unit: self.options.overrides.iter().find(|(at, _)| same_name(at, path)).and_then(|(_, stated)| stated.unit),
            value,
            path: self.paths.len() as u32 - 1,
        })
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The table's columns, those stated under `[table.columns]` that it lacks, and the metadata columns.
///
/// # Errors
/// A stated column without a type, or with a name that BigQuery does not take, where the table has none of its name; one that the table has with a type or mode that takes other values.
pub fn json_columns(table_columns: &[Column], options: &DecodeOptions) -> Result<Vec<Column>, Unmappable> {
    let mut columns = table_columns.to_vec();
    for (path, stated) in options.overrides.iter().filter(|(path, _)| !path.contains('.')) {
        let name = stated.name.as_ref().unwrap_or(path);
        if let Some(column) = columns.iter().find(|c| same_name(&c.name, name)) {
            fits_stated(column, path, stated.ty.as_ref(), stated.mode)?;
            continue;
        }
        let Some(ty) = stated.ty.clone() else {
            return Err(Unmappable::missing(format!(
                "[table.columns] {path}: the table has no column `{name}`: state its `type`, so that it can be added"
            )));
        };
        check_column_name(name).map_err(|why| Unmappable::schema(format!("[table.columns] {path}: {why}")))?;
        columns.push(Column { name: name.clone(), ty, mode: stated.mode.unwrap_or(Mode::Nullable), description: None });
    }
    for column in options.metadata_columns() {
        if !columns.iter().any(|c| same_name(&c.name, &column.name)) {
            columns.push(column);
        }
    }
    Ok(columns)
}

/// Whether a column that the table has takes what `[table.columns]` states for it.
fn fits_stated(column: &Column, path: &str, ty: Option<&ColumnType>, mode: Option<Mode>) -> Result<(), Unmappable> {
    let repeated = |mode| mode == Mode::Repeated;
    if ty.is_none_or(|ty| accepts(&column.ty, ty)) && mode.is_none_or(|mode| repeated(mode) == repeated(column.mode)) {
        return Ok(());
    }
    let words = |ty: &ColumnType, mode| if repeated(mode) { format!("REPEATED {ty}") } else { ty.to_string() };
    let stated = words(ty.unwrap_or(&column.ty), mode.unwrap_or(column.mode));
    Err(Unmappable::conflict(format!(
        "column `{}` is {} and [table.columns] {path} states {stated}: state what the table has, `name` another column there, or use another table",
        column.name,
        words(&column.ty, column.mode)
    )))
}
