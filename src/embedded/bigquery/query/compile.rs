//! From SQL's syntax tree to expressions over a row.

use sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem, UnaryOperator, Value,
};

use super::eval::{Ex, Op};
use super::unsupported;
use crate::embedded::bigquery::error::{ApiError, ApiResult};
use crate::embedded::bigquery::schema::column::same_name;
use crate::embedded::bigquery::schema::{Column, ColumnType, Mode, Schema};
use crate::embedded::bigquery::values::{Cell, civil, decimal::DecimalLimits};

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    CountRows,
    Count,
    CountDistinct,
    Min,
    Max,
    Sum,
    Avg,
}

/// A column of the answer.
#[derive(Debug)]
pub(super) struct Item {
    pub name: String,
    pub expr: Ex,
    pub aggregate: Option<Aggregate>,
    column: Column,
}

impl Item {
    pub(super) fn is_aggregate(&self) -> bool {
        self.aggregate.is_some()
    }

    /// How the answer describes it.
    pub(super) fn into_column(self) -> Column {
        Column { name: self.name, ..self.column }
    }
}

/// A column of a type, for computed items.
fn plain(kind: ColumnType) -> Column {
    Column {
        name: String::new(),
        kind,
        mode: Mode::Nullable,
        description: String::new(),
        fields: Vec::new(),
        max_length: None,
        parameters: None,
        range_element: None,
        default: None,
        picoseconds: false,
    }
}

/// Knows the columns.
pub(super) struct Compiler<'a> {
    pub schema: &'a Schema,
    pub alias: Option<&'a str>,
}

impl Compiler<'_> {
    /// The items of a SELECT list.
    pub(super) fn projection(&self, items: &[SelectItem]) -> ApiResult<Vec<Item>> {
        let mut result = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => {
                    let all = self.schema.columns.iter().enumerate();
                    result.extend(all.map(|(index, column)| Item {
                        name: column.name.clone(),
                        expr: Ex::Column(vec![index]),
                        aggregate: None,
                        column: column.clone(),
                    }));
                }
                SelectItem::UnnamedExpr(expr) => {
                    let name = match expr {
                        Expr::Identifier(name) => name.value.clone(),
                        Expr::CompoundIdentifier(parts) => parts.last().map_or_else(String::new, |part| part.value.clone()),
                        _ => format!("f{}_", result.len()),
                    };
                    result.push(self.item(name, expr)?);
                }
                SelectItem::ExprWithAlias { expr, alias } => result.push(self.item(alias.value.clone(), expr)?),
            }
        }
        Ok(result)
    }

    fn item(&self, name: String, expr: &Expr) -> ApiResult<Item> {
        if let Expr::Function(function) = expr {
            return self.aggregate(name, function);
        }
        let column = match expr {
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident))?.1,
            Expr::CompoundIdentifier(parts) => self.column(parts)?.1,
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) if text.parse::<i64>().is_ok() => plain(ColumnType::Int64),
                Value::Number(..) => plain(ColumnType::Float64),
                Value::Boolean(_) => plain(ColumnType::Bool),
                _ => plain(ColumnType::String),
            },
            Expr::BinaryOp {
                op: BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply | BinaryOperator::Divide, ..
            } => {
                return Err(unsupported("Arithmetic in the SELECT list"));
            }
            Expr::TypedString(_) => return Err(unsupported("A typed literal in the SELECT list")),
            _ => plain(ColumnType::Bool),
        };
        Ok(Item { name, expr: self.expr(expr)?, aggregate: None, column })
    }

    fn aggregate(&self, name: String, function: &Function) -> ApiResult<Item> {
        let called = function.name.to_string().to_uppercase();
        let FunctionArguments::List(list) = &function.args else { return Err(unsupported(&called)) };
        let is_distinct = matches!(list.duplicate_treatment, Some(sqlparser::ast::DuplicateTreatment::Distinct));
        let [FunctionArg::Unnamed(argument)] = &list.args[..] else { return Err(unsupported(&called)) };
        if function.over.is_some() || function.filter.is_some() {
            return Err(unsupported("OVER"));
        }
        let (aggregate, expr) = match (called.as_str(), argument, is_distinct) {
            ("COUNT", FunctionArgExpr::Wildcard, false) => (Aggregate::CountRows, None),
            ("COUNT", FunctionArgExpr::Expr(expr), false) => (Aggregate::Count, Some(expr)),
            ("COUNT", FunctionArgExpr::Expr(expr), true) => (Aggregate::CountDistinct, Some(expr)),
            ("MIN", FunctionArgExpr::Expr(expr), _) => (Aggregate::Min, Some(expr)),
            ("MAX", FunctionArgExpr::Expr(expr), _) => (Aggregate::Max, Some(expr)),
            ("SUM", FunctionArgExpr::Expr(expr), false) => (Aggregate::Sum, Some(expr)),
            ("AVG", FunctionArgExpr::Expr(expr), false) => (Aggregate::Avg, Some(expr)),
            _ => return Err(unsupported(&called)),
        };
        let inner = expr.map(|expr| self.item(String::new(), expr)).transpose()?;
        if inner.as_ref().is_some_and(Item::is_aggregate) {
            return Err(unsupported("An aggregate of an aggregate"));
        }
        let kind = inner.as_ref().map_or(ColumnType::Int64, |inner| inner.column.kind);
        let column = match aggregate {
            Aggregate::CountRows | Aggregate::Count | Aggregate::CountDistinct => plain(ColumnType::Int64),
            Aggregate::Avg if kind == ColumnType::Int64 => plain(ColumnType::Float64),
            _ => plain(kind),
        };
        let expr = inner.map_or(Ex::Literal(Cell::Null), |inner| inner.expr);
        Ok(Item { name, expr, aggregate: Some(aggregate), column })
    }

    /// The path of indices of a name, and its column.
    fn column(&self, parts: &[Ident]) -> ApiResult<(Vec<usize>, Column)> {
        let named = parts.iter().map(|part| part.value.as_str()).collect::<Vec<_>>();
        let named = match (&named[..], self.alias) {
            ([first, rest @ ..], Some(alias)) if !rest.is_empty() && *first == alias && self.schema.position(first).is_none() => rest,
            (all, _) => all,
        };
        let mut columns = &self.schema.columns;
        let mut path = Vec::new();
        let mut found: Option<&Column> = None;
        for part in named {
            if found.is_some_and(|column| column.mode == Mode::Repeated) {
                return Err(unsupported("A field of a REPEATED column"));
            }
            let unknown = || ApiError::invalid_query(format!("Unrecognized name: {}", named.join(".")));
            let (index, column) = columns.iter().enumerate().find(|(_, c)| same_name(&c.name, part)).ok_or_else(unknown)?;
            path.push(index);
            columns = &column.fields;
            found = Some(column);
        }
        found.map(|column| (path, column.clone())).ok_or_else(|| ApiError::invalid_query("Unrecognized name"))
    }

    /// An expression.
    pub(super) fn expr(&self, expr: &Expr) -> ApiResult<Ex> {
        let sub = |expr: &Expr| self.expr(expr).map(Box::new);
        Ok(match expr {
            Expr::Identifier(ident) => Ex::Column(self.column(std::slice::from_ref(ident))?.0),
            Expr::CompoundIdentifier(parts) => Ex::Column(self.column(parts)?.0),
            Expr::Nested(inner) => self.expr(inner)?,
            Expr::Value(value) => Ex::Literal(literal(&value.value)?),
            Expr::TypedString(typed) => Ex::Literal(typed_literal(&typed.data_type, &typed.value.value)?),
            Expr::IsNull(inner) => Ex::IsNull(sub(inner)?, false),
            Expr::IsNotNull(inner) => Ex::IsNull(sub(inner)?, true),
            Expr::IsTrue(inner) => self.expr(inner)?,
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => Ex::Not(sub(expr)?),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => Ex::Binary(Op::Minus, Box::new(Ex::Literal(Cell::Int(0))), sub(expr)?),
            Expr::BinaryOp { left, op, right } => Ex::Binary(operator(op)?, sub(left)?, sub(right)?),
            Expr::InList { expr, list, negated } => {
                let list = list.iter().map(|item| self.expr(item)).collect::<ApiResult<Vec<_>>>()?;
                Ex::In(sub(expr)?, list, *negated)
            }
            Expr::Between { expr, negated, low, high } => {
                let low = Ex::Binary(Op::GreaterOrEqual, sub(expr)?, sub(low)?);
                let both = Ex::Binary(Op::And, Box::new(low), Box::new(Ex::Binary(Op::LessOrEqual, sub(expr)?, sub(high)?)));
                if *negated { Ex::Not(Box::new(both)) } else { both }
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => Ex::Like(sub(expr)?, sub(pattern)?, *negated),
            other => return Err(unsupported(&format!("The expression {other}"))),
        })
    }
}

fn operator(op: &BinaryOperator) -> ApiResult<Op> {
    Ok(match op {
        BinaryOperator::Eq => Op::Equal,
        BinaryOperator::NotEq => Op::NotEqual,
        BinaryOperator::Lt => Op::Less,
        BinaryOperator::LtEq => Op::LessOrEqual,
        BinaryOperator::Gt => Op::Greater,
        BinaryOperator::GtEq => Op::GreaterOrEqual,
        BinaryOperator::And => Op::And,
        BinaryOperator::Or => Op::Or,
        BinaryOperator::Plus => Op::Plus,
        BinaryOperator::Minus => Op::Minus,
        BinaryOperator::Multiply => Op::Times,
        other => return Err(unsupported(&format!("The operator {other}"))),
    })
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::SingleQuotedString(t)
        | Value::DoubleQuotedString(t)
        | Value::TripleSingleQuotedString(t)
        | Value::TripleDoubleQuotedString(t) => Some(t.clone()),
        Value::SingleQuotedRawStringLiteral(t) | Value::DoubleQuotedRawStringLiteral(t) => Some(t.clone()),
        _ => None,
    }
}

fn literal(value: &Value) -> ApiResult<Cell> {
    Ok(match value {
        Value::Null => Cell::Null,
        Value::Boolean(v) => Cell::Bool(*v),
        Value::Number(text, _) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(v), _) => Cell::Int(v),
            (_, Ok(v)) => Cell::Float(v),
            _ => return Err(ApiError::invalid_query(format!("Invalid number {text}"))),
        },
        Value::SingleQuotedByteStringLiteral(t) | Value::DoubleQuotedByteStringLiteral(t) => Cell::Bytes(t.clone().into_bytes()),
        other => Cell::Text(text_of(other).ok_or_else(|| unsupported(&format!("The literal {other}")))?),
    })
}

fn typed_literal(kind: &DataType, value: &Value) -> ApiResult<Cell> {
    let text = text_of(value).ok_or_else(|| unsupported("This literal"))?;
    let parsed = match ColumnType::parse(&kind.to_string()) {
        Some(ColumnType::Date) => civil::parse_date(&text).map(Cell::Date),
        Some(ColumnType::Time) => civil::parse_time(&text).map(Cell::Time),
        Some(ColumnType::Datetime) => civil::parse_datetime(&text).map(Cell::Datetime),
        Some(ColumnType::Timestamp) => civil::parse_timestamp(&text).map(Cell::Timestamp),
        Some(ColumnType::Numeric | ColumnType::Bignumeric) => {
            let limits = DecimalLimits { type_scale: 38, parameters: None };
            limits.read_text(&text).ok().map(|v| Cell::Decimal(v.into_big()))
        }
        _ => None,
    };
    parsed.ok_or_else(|| ApiError::invalid_query(format!("Invalid {kind} literal '{text}'")))
}
