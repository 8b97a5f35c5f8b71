//! Aggregates over all rows that pass.

use std::collections::HashSet;

use num_bigint::BigInt;

use super::compile::{Aggregate, Item};
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::values::Cell;

/// An aggregate under way.
#[derive(Debug)]
pub(super) struct State {
    aggregate: Aggregate,
    count: i64,
    best: Cell,
    sum: f64,
    whole: BigInt,
    distinct: HashSet<String>,
}

impl State {
    pub(super) fn new(item: &Item) -> ApiResult<Self> {
        let aggregate = item.aggregate.ok_or_else(|| {
            ApiError::invalid_query(format!(
                "SELECT list expression references column {} which is neither grouped nor aggregated",
                item.name
            ))
        })?;
        Ok(Self { aggregate, count: 0, best: Cell::Null, sum: 0.0, whole: BigInt::ZERO, distinct: HashSet::new() })
    }

    /// Takes a row in.
    pub(super) fn add(&mut self, item: &Item, row: &[Cell]) -> Result<(), String> {
        if self.aggregate == Aggregate::CountRows {
            self.count += 1;
            return Ok(());
        }
        let value = item.expr.eval(row)?;
        if value == Cell::Null {
            return Ok(());
        }
        self.count += 1;
        match self.aggregate {
            Aggregate::Min | Aggregate::Max => {
                let wanted = if self.aggregate == Aggregate::Min { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater };
                if self.best == Cell::Null || value.compare(&self.best) == Some(wanted) {
                    self.best = value;
                }
            }
            Aggregate::Sum | Aggregate::Avg => {
                match &value {
                    Cell::Int(v) => self.whole += *v,
                    Cell::Decimal(v) => self.whole += v,
                    _ => {}
                }
                self.sum += value.as_f64().ok_or("No matching signature for SUM or AVG")?;
                self.best = value;
            }
            Aggregate::CountDistinct => drop(self.distinct.insert(format!("{value:?}"))),
            Aggregate::Count | Aggregate::CountRows => {}
        }
        Ok(())
    }

    /// The value.
    pub(super) fn finish(self) -> Cell {
        match self.aggregate {
            Aggregate::CountRows | Aggregate::Count => Cell::Int(self.count),
            Aggregate::CountDistinct => Cell::Int(self.distinct.len() as i64),
            Aggregate::Min | Aggregate::Max => self.best,
            _ if self.count == 0 => Cell::Null,
            Aggregate::Sum => match self.best {
                Cell::Int(_) => i64::try_from(self.whole).map_or(Cell::Float(self.sum), Cell::Int),
                Cell::Decimal(_) => Cell::Decimal(self.whole),
                _ => Cell::Float(self.sum),
            },
            Aggregate::Avg => match self.best {
                Cell::Decimal(_) => Cell::Decimal(self.whole / self.count),
                _ => Cell::Float(self.sum / self.count as f64),
            },
        }
    }
}
