//! `SELECT columns FROM table [WHERE ...] [ORDER BY ...] [LIMIT ...]` and aggregates over a whole table. What it cannot do it refuses.

mod aggregate;
mod compile;
mod eval;

use std::sync::Arc;

use sqlparser::ast::{Expr, GroupByExpr, LimitClause, OrderByKind, Query, Select, SetExpr, Statement, TableFactor, Value};
use sqlparser::dialect::BigQueryDialect;
use sqlparser::parser::Parser;

use super::error::{ApiError, ApiResult};
use super::schema::{Column, Schema};
use super::state::{Catalog, Table, TableKey};
use super::values::Cell;
use compile::{Compiler, Item};
use eval::Ex;

/// Rows and what they are.
#[derive(Debug)]
pub(crate) struct QueryResult {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<Cell>>,
}

/// Where names without a project or dataset belong.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults<'a> {
    pub project: &'a str,
    pub dataset: Option<&'a str>,
}

fn unsupported(what: &str) -> ApiError {
    ApiError::invalid_query(format!(
        "{what} is not supported by the embedded BigQuery: it takes SELECT columns FROM table [WHERE ...] [ORDER BY ...] [LIMIT ...], \
         COUNT, MIN, MAX, SUM, AVG over a whole table."
    ))
}

/// Runs a query.
pub(crate) fn run(catalog: &Catalog, defaults: Defaults<'_>, sql: &str) -> ApiResult<QueryResult> {
    let statements = Parser::parse_sql(&BigQueryDialect {}, sql).map_err(|e| ApiError::invalid_query(format!("Syntax error: {e}")))?;
    let [Statement::Query(query)] = &statements[..] else { return Err(unsupported("This statement")) };
    let SetExpr::Select(select) = query.body.as_ref() else { return Err(unsupported("This form of query")) };
    refuse(query, select)?;
    let (table, alias) = source(catalog, defaults, select)?;
    let schema = match &table {
        Some(table) => table.schema(),
        None => Arc::new(Schema::default()),
    };
    let compiler = Compiler { schema: &schema, alias: alias.as_deref() };
    let items = compiler.projection(&select.projection)?;
    let filter = select.selection.as_ref().map(|filter| compiler.expr(filter)).transpose()?;
    let order = order(query, &compiler, &items)?;
    let (limit, offset) = limits(query)?;
    let mut failed = None;
    let mut take = |sink: &mut dyn FnMut(&[Cell])| {
        let mut one = |row: Vec<Cell>| {
            match filter.as_ref().map_or(Ok(true), |filter| filter.is_true(&row)) {
                Ok(true) => sink(&row),
                Ok(false) => {}
                Err(problem) => failed = Some(problem),
            }
            failed.is_none()
        };
        match &table {
            Some(table) => table.each_row(None, one),
            None => drop(one(Vec::new())),
        }
    };
    let mut rows: Vec<(Vec<Cell>, Vec<Cell>)> = Vec::new();
    if items.iter().any(Item::is_aggregate) {
        let mut states: Vec<aggregate::State> = items.iter().map(aggregate::State::new).collect::<ApiResult<_>>()?;
        let mut problem = None;
        take(&mut |row| {
            for (state, item) in states.iter_mut().zip(&items) {
                if let Err(error) = state.add(item, row) {
                    problem.get_or_insert(error);
                }
            }
        });
        if let Some(problem) = problem {
            return Err(ApiError::invalid_query(problem));
        }
        rows.push((states.into_iter().map(aggregate::State::finish).collect(), Vec::new()));
    } else {
        let mut problem = None;
        let enough = if order.is_empty() { limit.saturating_add(offset) } else { usize::MAX };
        take(&mut |row| {
            if rows.len() >= enough {
                return;
            }
            let cells = items.iter().map(|item| item.expr.eval(row)).collect::<Result<Vec<_>, _>>();
            let keys = order.iter().map(|(expr, _)| expr.eval(row)).collect::<Result<Vec<_>, _>>();
            match (cells, keys) {
                (Ok(cells), Ok(keys)) => rows.push((cells, keys)),
                (Err(error), _) | (_, Err(error)) => drop(problem.get_or_insert(error)),
            }
        });
        if let Some(problem) = problem {
            return Err(ApiError::invalid_query(problem));
        }
    }
    if let Some(problem) = failed {
        return Err(ApiError::invalid_query(problem));
    }
    rows.sort_by(|(_, a), (_, b)| eval::order_of(a, b, &order));
    let rows = rows.into_iter().map(|(cells, _)| cells).skip(offset).take(limit).collect();
    Ok(QueryResult { columns: items.into_iter().map(Item::into_column).collect(), rows })
}

/// Clauses that would change the answer are refused, never ignored.
fn refuse(query: &Query, select: &Select) -> ApiResult<()> {
    let groups = match &select.group_by {
        GroupByExpr::Expressions(expressions, modifiers) => !expressions.is_empty() || !modifiers.is_empty(),
        GroupByExpr::All(_) => true,
    };
    for (is_there, what) in [
        (query.with.is_some(), "WITH"),
        (query.fetch.is_some(), "FETCH"),
        (!query.pipe_operators.is_empty(), "Pipe syntax"),
        (select.distinct.is_some(), "SELECT DISTINCT"),
        (groups, "GROUP BY"),
        (select.having.is_some(), "HAVING"),
        (select.qualify.is_some(), "QUALIFY"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.value_table_mode.is_some(), "SELECT AS"),
    ] {
        if is_there {
            return Err(unsupported(what));
        }
    }
    Ok(())
}

type Source = (Option<Arc<Table>>, Option<String>);

fn source(catalog: &Catalog, defaults: Defaults<'_>, select: &Select) -> ApiResult<Source> {
    let [from] = &select.from[..] else {
        return if select.from.is_empty() { Ok((None, None)) } else { Err(unsupported("A join")) };
    };
    if !from.joins.is_empty() {
        return Err(unsupported("A join"));
    }
    let TableFactor::Table { name, alias, args: None, version: None, sample: None, .. } = &from.relation else {
        return Err(unsupported("This kind of source"));
    };
    let parts: Vec<&str> = name.0.iter().filter_map(|part| part.as_ident()).map(|ident| ident.value.as_str()).collect();
    let whole = parts.join(".");
    let parts: Vec<&str> = whole.split('.').collect();
    let key = match (&parts[..], defaults.dataset) {
        ([p, d, t], _) => TableKey::new(p, d, t),
        ([d, t], _) => TableKey::new(defaults.project, d, t),
        ([t], Some(d)) => TableKey::new(defaults.project, d, t),
        _ => return Err(ApiError::invalid_query(format!("Table \"{whole}\" must be qualified with a dataset (e.g. dataset.table)."))),
    };
    catalog.dataset(&key.project, &key.dataset)?;
    let alias = alias.as_ref().map_or_else(|| key.table.clone(), |alias| alias.name.value.clone());
    Ok((Some(catalog.table(&key)?), Some(alias)))
}

/// Expressions of ORDER BY with whether they descend; a number or an output name stands for an item.
fn order(query: &Query, compiler: &Compiler<'_>, items: &[Item]) -> ApiResult<Vec<(Ex, bool)>> {
    let Some(order) = &query.order_by else { return Ok(Vec::new()) };
    let OrderByKind::Expressions(expressions) = &order.kind else { return Err(unsupported("ORDER BY ALL")) };
    let one = |by: &sqlparser::ast::OrderByExpr| {
        let descends = by.options.asc == Some(false);
        let expr = match &by.expr {
            Expr::Value(value) => {
                let position = whole_number(&Expr::Value(value.clone()))?;
                let item = position.checked_sub(1).and_then(|index| items.get(index));
                item.ok_or_else(|| ApiError::invalid_query(format!("ORDER BY position {position} is out of range")))?.expr.clone()
            }
            Expr::Identifier(name) if items.iter().any(|item| item.name.eq_ignore_ascii_case(&name.value)) => {
                let item = items.iter().find(|item| item.name.eq_ignore_ascii_case(&name.value));
                item.map_or(Ex::Literal(Cell::Null), |item| item.expr.clone())
            }
            other => compiler.expr(other)?,
        };
        Ok((expr, descends))
    };
    expressions.iter().map(one).collect()
}

fn limits(query: &Query) -> ApiResult<(usize, usize)> {
    match &query.limit_clause {
        None => Ok((usize::MAX, 0)),
        Some(LimitClause::LimitOffset { limit, offset, limit_by }) if limit_by.is_empty() => {
            let limit = limit.as_ref().map_or(Ok(usize::MAX), whole_number)?;
            Ok((limit, offset.as_ref().map_or(Ok(0), |offset| whole_number(&offset.value))?))
        }
        Some(_) => Err(unsupported("This form of LIMIT")),
    }
}

fn whole_number(expr: &Expr) -> ApiResult<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => text.parse().map_err(|_| ApiError::invalid_query(format!("{text} is not a whole number"))),
            other => Err(ApiError::invalid_query(format!("{other} is not a whole number"))),
        },
        other => Err(ApiError::invalid_query(format!("{other} is not a whole number"))),
    }
}
