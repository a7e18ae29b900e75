//! Logging set-up. Logs go to standard error, so that the output of commands stays clean.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people; coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object a line.
    Json,
}

/// A log level or filter that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is neither a log level nor a filter such as `info,chancery::xds=debug`: {reason}")]
pub struct LevelError {
    text: String,
    reason: tracing_subscriber::filter::ParseError,
}

/// Starts logging. `level` is a level (`info`) or a filter (`info,chancery::xds=debug`); a process that has a
/// subscriber already keeps it.
///
/// # Errors
/// When the level cannot be read.
pub fn init(level: &str, format: Format) -> Result<(), LevelError> {
    let filter =
        EnvFilter::builder().parse(level).map_err(|reason| LevelError { text: level.to_owned(), reason })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that there is a subscriber already, which is the caller's wish.
    let _ = match format {
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
        }
        Format::Text => lines.with_ansi(colours(&std::io::stderr())).with_target(false).try_init(),
    };
    Ok(())
}

/// Whether to colour what goes to this stream: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub fn colours(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_named() {
        let error = init("info,chancery=loud", Format::Text).unwrap_err().to_string();
        assert!(error.contains("`info,chancery=loud`"), "{error}");
    }
}
