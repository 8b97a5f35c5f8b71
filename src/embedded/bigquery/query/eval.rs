//! Expressions over a row, with SQL's three-valued logic.

use std::cmp::Ordering;

use crate::embedded::bigquery::values::decimal::DecimalLimits;
use crate::embedded::bigquery::values::{Cell, civil};

/// Operators of two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Plus,
    Minus,
    Times,
}

/// An expression.
#[derive(Debug, Clone)]
pub(super) enum Ex {
    /// A column, or a field within records, by indices.
    Column(Vec<usize>),
    Literal(Cell),
    Binary(Op, Box<Ex>, Box<Ex>),
    Not(Box<Ex>),
    /// `IS NULL`; negated: `IS NOT NULL`.
    IsNull(Box<Ex>, bool),
    In(Box<Ex>, Vec<Ex>, bool),
    Like(Box<Ex>, Box<Ex>, bool),
}

impl Ex {
    /// Whether a filter lets a row pass: NULL does not.
    pub(super) fn is_true(&self, row: &[Cell]) -> Result<bool, String> {
        match self.eval(row)? {
            Cell::Bool(v) => Ok(v),
            Cell::Null => Ok(false),
            _ => Err("WHERE clause should return type BOOL".to_owned()),
        }
    }

    /// The value for a row.
    pub(super) fn eval(&self, row: &[Cell]) -> Result<Cell, String> {
        Ok(match self {
            Self::Literal(cell) => cell.clone(),
            Self::Column(path) => column(path, row),
            Self::IsNull(inner, negated) => Cell::Bool((inner.eval(row)? == Cell::Null) != *negated),
            Self::Not(inner) => match inner.eval(row)? {
                Cell::Bool(v) => Cell::Bool(!v),
                Cell::Null => Cell::Null,
                _ => return Err("NOT takes a BOOL".to_owned()),
            },
            Self::Binary(op @ (Op::And | Op::Or), left, right) => logic(*op, left.eval(row)?, right.eval(row)?)?,
            Self::Binary(op @ (Op::Plus | Op::Minus | Op::Times), left, right) => arithmetic(*op, &left.eval(row)?, &right.eval(row)?)?,
            Self::Binary(op, left, right) => compared(&left.eval(row)?, &right.eval(row)?)?.map_or(Cell::Null, |order| {
                Cell::Bool(match op {
                    Op::Equal => order.is_eq(),
                    Op::NotEqual => order.is_ne(),
                    Op::Less => order.is_lt(),
                    Op::LessOrEqual => order.is_le(),
                    Op::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })
            }),
            Self::In(inner, list, negated) => {
                let value = inner.eval(row)?;
                let mut has_null = value == Cell::Null;
                for item in list {
                    match compared(&value, &item.eval(row)?)? {
                        Some(Ordering::Equal) => return Ok(Cell::Bool(!negated)),
                        None => has_null = true,
                        _ => {}
                    }
                }
                if has_null { Cell::Null } else { Cell::Bool(*negated) }
            }
            Self::Like(inner, pattern, negated) => match (inner.eval(row)?, pattern.eval(row)?) {
                (Cell::Text(text), Cell::Text(pattern)) => Cell::Bool(like(&text, &pattern) != *negated),
                (Cell::Null, _) | (_, Cell::Null) => Cell::Null,
                _ => return Err("LIKE takes two STRINGs".to_owned()),
            },
        })
    }
}

fn column(path: &[usize], row: &[Cell]) -> Cell {
    let mut cells = row;
    for (depth, index) in path.iter().enumerate() {
        match cells.get(*index) {
            Some(Cell::Record(inner)) if depth + 1 < path.len() => cells = inner,
            Some(cell) if depth + 1 == path.len() => return cell.clone(),
            _ => return Cell::Null,
        }
    }
    Cell::Null
}

fn logic(op: Op, left: Cell, right: Cell) -> Result<Cell, String> {
    let truth = |cell: Cell| match cell {
        Cell::Bool(v) => Ok(Some(v)),
        Cell::Null => Ok(None),
        _ => Err("AND and OR take BOOLs".to_owned()),
    };
    let deciding = op == Op::Or;
    Ok(match (truth(left)?, truth(right)?) {
        (Some(v), _) | (_, Some(v)) if v == deciding => Cell::Bool(deciding),
        (Some(_), Some(_)) => Cell::Bool(!deciding),
        _ => Cell::Null,
    })
}

fn arithmetic(op: Op, left: &Cell, right: &Cell) -> Result<Cell, String> {
    match (left, right) {
        (Cell::Null, _) | (_, Cell::Null) => Ok(Cell::Null),
        (Cell::Int(a), Cell::Int(b)) => {
            let value = match op {
                Op::Plus => a.checked_add(*b),
                Op::Minus => a.checked_sub(*b),
                _ => a.checked_mul(*b),
            };
            value.map(Cell::Int).ok_or_else(|| "int64 overflow".to_owned())
        }
        _ => {
            let (Some(a), Some(b)) = (left.as_f64(), right.as_f64()) else { return Err("arithmetic takes numbers".to_owned()) };
            Ok(Cell::Float(match op {
                Op::Plus => a + b,
                Op::Minus => a - b,
                _ => a * b,
            }))
        }
    }
}

/// The order of two values, `None` for NULL; a text beside a date, time, timestamp or decimal is read as one.
pub(super) fn compared(left: &Cell, right: &Cell) -> Result<Option<Ordering>, String> {
    match (left, right) {
        (Cell::Null, _) | (_, Cell::Null) => return Ok(None),
        (Cell::Text(_), Cell::Text(_)) => {}
        (Cell::Text(text), other) => return Ok(read_as(text, other)?.compare(other)),
        (other, Cell::Text(text)) => return Ok(other.compare(&read_as(text, other)?)),
        (Cell::Float(a), _) if a.is_nan() => return Ok(None),
        (_, Cell::Float(b)) if b.is_nan() => return Ok(None),
        _ => {}
    }
    left.compare(right).map(Some).ok_or_else(|| "No matching signature for a comparison of these types".to_owned())
}

fn read_as(text: &str, like: &Cell) -> Result<Cell, String> {
    let read = match like {
        Cell::Date(_) => civil::parse_date(text).map(Cell::Date),
        Cell::Time(_) => civil::parse_time(text).map(Cell::Time),
        Cell::Datetime(_) => civil::parse_datetime(text).map(Cell::Datetime),
        Cell::Timestamp(_) => civil::parse_timestamp(text).map(Cell::Timestamp),
        Cell::Decimal(_) => DecimalLimits { type_scale: 38, parameters: None }.read_text(text).ok().map(|v| Cell::Decimal(v.into_big())),
        _ => None,
    };
    read.ok_or_else(|| format!("Could not cast literal \"{text}\" to the type it is compared with"))
}

/// `%` any text, `_` any character.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '%' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '_' || pattern[p] == text[t]) {
            (t, p) = (t + 1, p + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (t, p) = (from + 1, at + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}

/// The order of two rows by their keys: NULL first, as BigQuery does ascending.
pub(super) fn order_of(a: &[Cell], b: &[Cell], by: &[(Ex, bool)]) -> Ordering {
    for ((a, b), (_, descends)) in a.iter().zip(b).zip(by) {
        let order = match (a, b) {
            (Cell::Null, Cell::Null) => Ordering::Equal,
            (Cell::Null, _) => Ordering::Less,
            (_, Cell::Null) => Ordering::Greater,
            _ => a.compare(b).unwrap_or(Ordering::Equal),
        };
        if order.is_ne() {
            return if *descends { order.reverse() } else { order };
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (text, pattern, expected) in
            [("abc", "a%", true), ("abc", "%c", true), ("abc", "a_c", true), ("abc", "a", false), ("", "%", true), ("aXbXc", "a%b%c", true)]
        {
            assert_eq!(like(text, pattern), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn nulls_in_logic() {
        assert_eq!(logic(Op::And, Cell::Null, Cell::Bool(false)), Ok(Cell::Bool(false)));
        assert_eq!(logic(Op::And, Cell::Null, Cell::Bool(true)), Ok(Cell::Null));
        assert_eq!(logic(Op::Or, Cell::Null, Cell::Bool(true)), Ok(Cell::Bool(true)));
    }
}
