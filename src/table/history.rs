//! Field numbers that only ever grow: the layouts of one table as one worker has known them.

use std::sync::Arc;

use super::descriptor::encode_descriptor;
use super::{Column, ColumnType, LaidColumn, Layout, Mode, SharedLayout, same_name};

/// The greatest field number that we give: its tag takes four bytes on the wire.
const MAX_FIELD_NUMBER: u32 = (1 << 25) - 1;
/// Numbers that protobuf keeps for itself.
const RESERVED_NUMBERS: std::ops::RangeInclusive<u32> = 19_000..=19_999;
/// BigQuery's limit of columns in a table, nested ones counted (quotas).
pub const MAX_COLUMNS: usize = 10_000;
/// BigQuery's limit of RECORD inside RECORD (quotas).
pub const MAX_RECORD_DEPTH: usize = 15;

/// Why columns cannot be laid out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// More columns than BigQuery takes, nested ones counted.
    #[error("{0} columns, nested ones counted: BigQuery takes {MAX_COLUMNS}")]
    TooManyColumns(usize),
    /// RECORD nested too deep.
    #[error("column `{0}` nests RECORD deeper than BigQuery's {MAX_RECORD_DEPTH} levels")]
    TooDeep(String),
    /// Two columns of one level whose names differ at most by case.
    #[error("two columns are named `{0}` (case does not count)")]
    DuplicateName(String),
    /// Field numbers are used up: this worker saw millions of changes.
    #[error("no field number is left for column `{0}`: restart the worker")]
    NumbersUsedUp(String),
}

/// The layouts of one table in one worker: numbers are given once and never again to another column.
#[derive(Debug)]
pub struct LayoutHistory {
    levels: Level,
    current: SharedLayout,
}

/// One level of a row message: its fields, and the next number to give.
#[derive(Debug, Clone, Default)]
struct Level {
    last_number: u32,
    fields: Vec<Field>,
}

#[derive(Debug, Clone)]
struct Field {
    number: u32,
    name: String,
    ty: ColumnType,
    mode: Mode,
    level: Level,
}

impl Default for LayoutHistory {
    fn default() -> Self {
        Self::new()
    }
}

impl LayoutHistory {
    /// No columns yet (version 0). Values travel in BigQuery's packed forms.
    pub fn new() -> Self {
        Self::with_text_literals(false)
    }

    /// As [`Self::new`]; with `text_literals`, NUMERIC, BIGNUMERIC, TIME and DATETIME travel as text.
    pub fn with_text_literals(text_literals: bool) -> Self {
        let levels = Level::default();
        let current =
            Arc::new(Layout { version: 0, descriptor: encode_descriptor(&[], text_literals), columns: Vec::new(), text_literals });
        Self { levels, current }
    }

    /// The newest layout.
    pub fn current(&self) -> SharedLayout {
        Arc::clone(&self.current)
    }

    /// Makes the layout the union of what it holds and `columns`; the same `Arc` when nothing is new. A column that changed its wire form (type, or
    /// REPEATED or not) gets a new number, and the old one is gone from the layout.
    ///
    /// # Errors
    /// [`LayoutError`]; the history is unchanged then.
    pub fn include(&mut self, columns: &[Column]) -> Result<SharedLayout, LayoutError> {
        self.advance(columns, false)
    }

    /// As [`Self::include`], but columns that `columns` lacks leave the layout (a table that was made again, a dropped column). Their numbers stay used.
    ///
    /// # Errors
    /// [`LayoutError`]; the history is unchanged then.
    pub fn replace(&mut self, columns: &[Column]) -> Result<SharedLayout, LayoutError> {
        self.advance(columns, true)
    }

    fn advance(&mut self, columns: &[Column], exact: bool) -> Result<SharedLayout, LayoutError> {
        let mut levels = self.levels.clone();
        if !levels.merge(columns, exact, 0)? {
            return Ok(self.current());
        }
        let count = levels.count();
        if count > MAX_COLUMNS {
            return Err(LayoutError::TooManyColumns(count));
        }
        let columns = levels.laid();
        let text_literals = self.current.text_literals;
        let descriptor = encode_descriptor(&columns, text_literals);
        self.levels = levels;
        self.current = Arc::new(Layout { version: self.current.version + 1, descriptor, columns, text_literals });
        Ok(self.current())
    }
}

impl Level {
    /// Returns whether anything changed.
    fn merge(&mut self, columns: &[Column], exact: bool, depth: usize) -> Result<bool, LayoutError> {
        let mut changed = false;
        for (i, column) in columns.iter().enumerate() {
            if columns[..i].iter().any(|c| same_name(&c.name, &column.name)) {
                return Err(LayoutError::DuplicateName(column.name.clone()));
            }
            changed |= self.merge_column(column, exact, depth)?;
        }
        if exact {
            let before = self.fields.len();
            self.fields.retain(|f| columns.iter().any(|c| same_name(&c.name, &f.name)));
            changed |= self.fields.len() != before;
        }
        Ok(changed)
    }

    fn merge_column(&mut self, column: &Column, exact: bool, depth: usize) -> Result<bool, LayoutError> {
        let inner = inner_columns(&column.ty);
        if !inner.is_empty() && depth >= MAX_RECORD_DEPTH {
            return Err(LayoutError::TooDeep(column.name.clone()));
        }
        let known = self.fields.iter().position(|f| same_name(&f.name, &column.name));
        if let Some(field) = known.and_then(|at| self.fields.get_mut(at))
            && same_wire(&field.ty, &column.ty)
            && (field.mode == Mode::Repeated) == (column.mode == Mode::Repeated)
        {
            let mut changed = field.level.merge(&inner, exact, depth + 1)?;
            if field.mode != column.mode {
                field.mode = column.mode;
                changed = true;
            }
            // A table that was made again may spell it otherwise, and whether the write servers mind is not documented.
            if exact && field.name != column.name {
                field.name.clone_from(&column.name);
                changed = true;
            }
            if parameters_differ(&field.ty, &column.ty) {
                field.ty = column.ty.clone();
                changed = true;
            }
            return Ok(changed);
        }
        let mut number = self.last_number + 1;
        if RESERVED_NUMBERS.contains(&number) {
            number = RESERVED_NUMBERS.end() + 1;
        }
        if number > MAX_FIELD_NUMBER {
            return Err(LayoutError::NumbersUsedUp(column.name.clone()));
        }
        self.last_number = number;
        let mut level = Level::default();
        level.merge(&inner, exact, depth + 1)?;
        let field = Field { number, name: column.name.clone(), ty: column.ty.clone(), mode: column.mode, level };
        match known {
            Some(at) => self.fields[at] = field,
            None => self.fields.push(field),
        }
        Ok(true)
    }

    fn count(&self) -> usize {
        self.fields.iter().map(|f| 1 + if matches!(f.ty, ColumnType::Range(_)) { 0 } else { f.level.count() }).sum()
    }

    fn laid(&self) -> Vec<LaidColumn> {
        self.fields
            .iter()
            .map(|f| LaidColumn { number: f.number, name: f.name.clone(), ty: f.ty.clone(), mode: f.mode, children: f.level.laid() })
            .collect()
    }
}

/// What a message inside the row consists of: the fields of a STRUCT, the bounds of a RANGE.
fn inner_columns(ty: &ColumnType) -> Vec<Column> {
    match ty {
        ColumnType::Struct(columns) => columns.clone(),
        ColumnType::Range(of) => ["start", "end"]
            .into_iter()
            .map(|name| Column { name: name.to_owned(), ty: (**of).clone(), mode: Mode::Nullable, description: None })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether bytes written for one type can stay under the same number for the other.
fn same_wire(a: &ColumnType, b: &ColumnType) -> bool {
    match (a, b) {
        (ColumnType::Range(a), ColumnType::Range(b)) => same_wire(a, b),
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// Whether lengths or precisions differ, which leaves the wire form as it is.
fn parameters_differ(a: &ColumnType, b: &ColumnType) -> bool {
    !matches!(a, ColumnType::Struct(_) | ColumnType::Range(_)) && a != b
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn column(name: &str, ty: ColumnType) -> Column {
        Column { name: name.to_owned(), ty, mode: Mode::Nullable, description: None }
    }

    #[test]
    fn numbers_are_append_only_and_the_same_layout_is_given_again() {
        let mut history = LayoutHistory::new();
        let first = history.include(&[column("a", ColumnType::Int64), column("b", ColumnType::String(None))]).unwrap();
        let again = history.include(&[column("B", ColumnType::String(None))]).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "names differ by case only: nothing new");
        let second = history.include(&[column("c", ColumnType::Bool), column("a", ColumnType::Int64)]).unwrap();
        assert_eq!(second.version, first.version + 1);
        assert_eq!(second.columns.iter().map(|c| (c.name.as_str(), c.number)).collect::<Vec<_>>(), [("a", 1), ("b", 2), ("c", 3)]);
    }

    #[test]
    fn a_changed_type_gets_a_new_number_and_a_wider_length_keeps_it() {
        let mut history = LayoutHistory::new();
        history.include(&[column("a", ColumnType::Int64), column("s", ColumnType::String(Some(3)))]).unwrap();
        let layout = history.include(&[column("a", ColumnType::String(None)), column("s", ColumnType::String(Some(9)))]).unwrap();
        assert_eq!(layout.columns.iter().map(|c| (c.name.as_str(), c.number)).collect::<Vec<_>>(), [("a", 3), ("s", 2)]);
        assert_eq!(layout.column("s").unwrap().ty, ColumnType::String(Some(9)));
        let mut repeated = column("s", ColumnType::String(Some(9)));
        repeated.mode = Mode::Repeated;
        assert_eq!(history.include(&[repeated]).unwrap().column("s").unwrap().number, 4);
    }

    #[test]
    fn nested_columns_are_merged_and_replace_drops() {
        let mut history = LayoutHistory::new();
        history.include(&[column("r", ColumnType::Struct(vec![column("x", ColumnType::Int64)]))]).unwrap();
        let layout = history.include(&[column("r", ColumnType::Struct(vec![column("y", ColumnType::Int64)]))]).unwrap();
        let r = layout.column("r").unwrap();
        assert_eq!((r.number, r.child("x").unwrap().number, r.child("y").unwrap().number), (1, 1, 2));
        let layout = history.replace(&[column("r", ColumnType::Struct(vec![column("z", ColumnType::Int64)]))]).unwrap();
        let r = layout.column("r").unwrap();
        assert_eq!((r.children.len(), r.child("z").unwrap().number), (1, 3));
    }

    #[test]
    fn replace_takes_the_tables_spelling_and_keeps_the_number() {
        let mut history = LayoutHistory::new();
        let first = history.replace(&[column("a", ColumnType::Int64)]).unwrap();
        let again = history.replace(&[column("A", ColumnType::Int64)]).unwrap();
        assert_eq!((again.columns[0].name.as_str(), again.columns[0].number, again.describes(&first)), ("A", 1, true));
        assert!(Arc::ptr_eq(&again, &history.replace(&[column("A", ColumnType::Int64)]).unwrap()));
    }

    #[test]
    fn a_layout_describes_older_rows_until_a_column_goes_or_changes() {
        let mut history = LayoutHistory::new();
        let nested = |ty| column("r", ColumnType::Struct(vec![column("x", ty)]));
        let first = history.include(&[column("a", ColumnType::Int64), nested(ColumnType::Int64)]).unwrap();
        let more = history.include(&[column("b", ColumnType::Bool)]).unwrap();
        assert!(more.describes(&first) && !first.describes(&more));
        let other_type = history.include(&[nested(ColumnType::Bool)]).unwrap();
        assert!(!other_type.describes(&more), "r.x has another number");
        let dropped = history.replace(&[column("a", ColumnType::Int64)]).unwrap();
        assert!(!dropped.describes(&other_type));
        let back = history.include(&[column("b", ColumnType::Bool)]).unwrap();
        assert!(back.describes(&dropped) && !back.describes(&more), "a column that came back has a new number");
    }

    #[test]
    fn limits_are_errors_and_leave_the_history_unchanged() {
        let mut history = LayoutHistory::new();
        let many: Vec<Column> = (0..=MAX_COLUMNS).map(|i| column(&format!("c{i}"), ColumnType::Bool)).collect();
        assert_eq!(history.include(&many[..200]).unwrap().version, 1);
        let two = [column("a", ColumnType::Bool), column("A", ColumnType::Bool)];
        assert_eq!(history.include(&two).unwrap_err(), LayoutError::DuplicateName("A".to_owned()));
        let deep = (0..=MAX_RECORD_DEPTH).fold(column("leaf", ColumnType::Bool), |c, _| column("r", ColumnType::Struct(vec![c])));
        assert!(matches!(history.include(&[deep]), Err(LayoutError::TooDeep(_))));
        assert_eq!(history.current().version, 1);
    }
}
