//! Logs: a line a notable event, never a line a record.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;
use tracing_subscriber::{fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// The environment variable that sets levels, such as `info,millrace::kafka=debug`.
pub const FILTER_VARIABLE: &str = "MILLRACE_LOG";

/// Without [`FILTER_VARIABLE`]: our own events from `info`, what libraries say from `warn`.
const DEFAULT_FILTER: &str = "warn,millrace=info";

/// Sends log lines to stderr, as text or as one JSON object a line.
///
/// # Errors
/// When a subscriber is installed already. A filter that cannot be read is replaced by the default one, and the log says so.
pub fn install(format: LogFormat) -> Result<(), TryInitError> {
    let (filter, complaint) = match std::env::var(FILTER_VARIABLE) {
        Err(_) => (EnvFilter::new(DEFAULT_FILTER), None),
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        },
    };
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(false)).try_init()?,
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_current_span(true).with_writer(std::io::stderr)).try_init()?;
        }
    }
    if let Some(error) = complaint {
        tracing::warn!(%error, default = DEFAULT_FILTER, "{FILTER_VARIABLE} cannot be read, the default filter is used");
    }
    Ok(())
}
