//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;

/// Logs from here on. Fails if the filter cannot be parsed.
pub fn init(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let filter: EnvFilter = filter.parse()?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).init(),
        LogFormat::Text => logs.init(),
    }
    Ok(())
}
