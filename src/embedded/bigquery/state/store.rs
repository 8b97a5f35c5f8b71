//! A table's rows, kept about as compactly as they came: the wire bytes with the plan that reads them.

use std::sync::Arc;

use super::table::now_ms;
use crate::embedded::bigquery::rows::plan::MessagePlan;
use crate::embedded::bigquery::rows::read;
use crate::embedded::bigquery::rows::wire::RowsReader;
use crate::embedded::bigquery::schema::Schema;
use crate::embedded::bigquery::values::Cell;

/// Rows that arrived together or one after another by one plan.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    /// `ProtoRows` in wire form.
    Proto {
        plan: Arc<MessagePlan>,
        /// Values of columns that a row leaves unset.
        fill: Arc<[(usize, Cell)]>,
        bytes: Vec<u8>,
        rows: u64,
    },
    /// Cells in the schema's order.
    Cells(Vec<Vec<Cell>>),
}

const SEAL_BYTES: usize = 1 << 20;

/// All rows of a table.
#[derive(Debug, Default)]
pub(crate) struct Store {
    sealed: Vec<Arc<Segment>>,
    open: Option<Segment>,
    rows: u64,
    bytes: u64,
    /// For each push: how many rows there were after it, and when it was, milliseconds since the epoch.
    arrivals: Vec<(u64, i64)>,
}

impl Store {
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the rows from the `from`th on arrived, in order: (rows after that arrival, milliseconds since the epoch).
    pub(crate) fn arrivals(&self, from: u64) -> Vec<(u64, i64)> {
        let first = self.arrivals.partition_point(|(until, _)| *until <= from);
        self.arrivals[first..].to_vec()
    }

    /// Segments that hold the rows from the `from`th on, with how many rows lie before the first of them.
    pub(crate) fn snapshot_from(&self, from: u64) -> (u64, Vec<Arc<Segment>>) {
        let mut before = 0;
        let mut segments = self.snapshot();
        let skipped = segments.iter().take_while(|segment| {
            let fits = before + segment.rows() <= from;
            before += if fits { segment.rows() } else { 0 };
            fits
        });
        let skipped = skipped.count();
        segments.drain(..skipped);
        (before, segments)
    }

    /// Adds rows in wire form that were checked by `plan`.
    pub(crate) fn push_proto(&mut self, plan: &Arc<MessagePlan>, fill: &Arc<[(usize, Cell)]>, proto_rows: &[u8], count: u64) {
        self.rows += count;
        self.bytes += proto_rows.len() as u64;
        self.arrivals.push((self.rows, now_ms()));
        if let Some(Segment::Proto { plan: p, fill: f, bytes, rows }) = &mut self.open
            && Arc::ptr_eq(p, plan)
            && f.is_empty()
            && fill.is_empty()
            && bytes.len() + proto_rows.len() <= SEAL_BYTES
        {
            bytes.extend_from_slice(proto_rows);
            *rows += count;
            return;
        }
        self.seal();
        let segment = Segment::Proto { plan: Arc::clone(plan), fill: Arc::clone(fill), bytes: proto_rows.to_vec(), rows: count };
        if proto_rows.len() >= SEAL_BYTES / 2 {
            self.sealed.push(Arc::new(segment));
        } else {
            self.open = Some(segment);
        }
    }

    /// Adds rows as cells.
    pub(crate) fn push_cells(&mut self, mut rows: Vec<Vec<Cell>>) {
        self.rows += rows.len() as u64;
        self.arrivals.push((self.rows, now_ms()));
        self.bytes += rows.iter().map(|row| 16 * row.len() as u64).sum::<u64>();
        match &mut self.open {
            Some(Segment::Cells(cells)) if cells.len() < 10_000 => cells.append(&mut rows),
            _ => {
                self.seal();
                self.open = Some(Segment::Cells(rows));
            }
        }
    }

    fn seal(&mut self) {
        if let Some(mut segment) = self.open.take() {
            if let Segment::Proto { bytes, .. } = &mut segment {
                bytes.shrink_to_fit();
            }
            self.sealed.push(Arc::new(segment));
        }
    }

    /// All rows as they are now; later rows do not show.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Segment>> {
        self.sealed.iter().cloned().chain(self.open.clone().map(Arc::new)).collect()
    }
}

impl Segment {
    /// How many rows.
    fn rows(&self) -> u64 {
        match self {
            Self::Proto { rows, .. } => *rows,
            Self::Cells(rows) => rows.len() as u64,
        }
    }

    /// Calls `f` for every row, widened to the schema; columns that are not `wanted` may be NULL. `f` returns whether to go on.
    pub(crate) fn each(&self, schema: &Schema, wanted: Option<&[bool]>, f: &mut dyn FnMut(Vec<Cell>, Option<Change>) -> bool) -> bool {
        match self {
            Self::Cells(rows) => rows.iter().all(|row| f(read::widened(row.clone(), schema), None)),
            Self::Proto { plan, fill, bytes, .. } => {
                let has_changes = plan.fields.iter().any(|field| field.column == crate::embedded::bigquery::rows::plan::NO_COLUMN);
                RowsReader::new(bytes).flatten().all(|row| {
                    let mut cells = read::widened(read::row(plan, row, wanted), schema);
                    for (column, value) in fill.iter() {
                        let is_wanted = wanted.is_none_or(|w| w.get(*column).copied().unwrap_or(false));
                        if let Some(cell @ Cell::Null) = cells.get_mut(*column).filter(|_| is_wanted) {
                            *cell = value.clone();
                        }
                    }
                    let change = has_changes.then(|| {
                        let (kind, sequence) = read::change(plan, row);
                        Change { delete: kind.as_deref() == Some("DELETE"), sequence: sequence.map(|s| sections(&s)) }
                    });
                    f(cells, change)
                })
            }
        }
    }
}

/// What a CDC row does (change-data-capture).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub delete: bool,
    /// Sections of `_CHANGE_SEQUENCE_NUMBER`, compared one by one as unsigned numbers.
    pub sequence: Option<Vec<u64>>,
}

fn sections(text: &str) -> Vec<u64> {
    text.split('/').map(|s| u64::from_str_radix(s, 16).unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_rows_are_found_with_their_arrival() {
        let mut store = Store::default();
        store.push_cells(vec![vec![Cell::Int(0)], vec![Cell::Int(1)]]);
        store.seal();
        store.push_cells(vec![vec![Cell::Int(2)]]);
        store.push_cells(vec![vec![Cell::Int(3)], vec![Cell::Int(4)]]);
        let counts = |from| store.arrivals(from).into_iter().map(|(until, _)| until).collect::<Vec<_>>();
        assert_eq!(counts(0), [2, 3, 5]);
        assert_eq!(counts(2), [3, 5]);
        assert_eq!(counts(4), [5]);
        assert!(counts(5).is_empty());
        assert!(store.arrivals(0).is_sorted_by_key(|(_, at)| *at));
        for (from, before, rows) in [(0, 0, 5), (1, 0, 5), (2, 2, 3), (4, 2, 3), (5, 5, 0)] {
            let (skipped, segments) = store.snapshot_from(from);
            assert_eq!((skipped, segments.iter().map(|s| s.rows()).sum::<u64>()), (before, rows), "from {from}");
        }
    }
}
