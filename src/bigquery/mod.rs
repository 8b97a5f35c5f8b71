//! BigQuery: tables over REST, rows over the Storage Write API, and what each of its errors asks for.
//!
//! Belongs here: requests, answers, credentials, connections, evolution of a table, the match from error class to action.
//! Does not belong here: which records an append carries, when it is sent again (`pipeline/`).
//!
//! Start at [`connect`]: it gives [`Tables`], [`Appender`] and [`WriteStreams`], the traits that the pipeline sees.

mod action;
mod append;
mod auth;
mod changes;
mod check;
mod classify;
mod connect;
mod ensure;
mod evolve;
mod rest;
mod seam;
mod table_json;
mod tables;
mod trust;

pub use action::ActionContext;
pub use check::Permission;
pub use connect::{BigQuery, ConnectError, connect, tables_over};
pub use rest::{NoAnswer, RestCall, RestTransport};
pub use seam::{
    Action, Append, AppendFailure, Appender, ErrorClass, Gate, RetryPace, RowError, StreamLine, TableError, TableSpec, TableState, Tables,
    TimePartition, WriteStreams,
};
