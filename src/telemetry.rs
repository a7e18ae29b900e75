//! Logging set-up. Logs go to standard error, so that the output of commands stays clean.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

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
#[error(
    "`{0}` is neither a log level (error, warn, info, debug, trace) nor a filter such as info,chancery::xds=debug"
)]
pub struct LevelError(String);

/// Starts logging. `level` is a level (`info`) or a filter (`info,chancery::xds=debug`); a process that has a
/// subscriber already keeps it.
///
/// # Errors
/// When the level cannot be read.
pub fn init(level: &str, format: Format) -> Result<(), LevelError> {
    let filter = filter(level).ok_or_else(|| LevelError(level.to_owned()))?;
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

/// What tells of every file event tells of those that its own lines make, where the log is beside what is watched.
const WATCHER: &str = "notify=info";

/// Who did what with quotas is logged unless it is said otherwise of this alone.
const AUDIT: &str = "audit=info";

/// A word alone is a level; `EnvFilter` would take a misspelt one for the name of a module.
fn filter(level: &str) -> Option<EnvFilter> {
    let mut words = level.split(',').filter(|part| !part.contains('='));
    let levels = words.all(|word| word.trim().parse::<LevelFilter>().is_ok());
    EnvFilter::builder().parse(format!("{WATCHER},{AUDIT},{level}")).ok().filter(|_| levels)
}

/// Whether to colour what goes to this stream: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub fn colours(stream: &impl std::io::IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tracing_everything_does_not_trace_the_log() {
        assert!(filter("trace").unwrap().to_string().contains(WATCHER));
        assert!(!filter("notify=trace").unwrap().to_string().contains(WATCHER));
    }

    #[test]
    fn audits_are_logged_whatever_the_level() {
        assert!(filter("error").unwrap().to_string().contains(AUDIT));
        assert!(!filter("info,audit=off").unwrap().to_string().contains(AUDIT));
    }

    #[test]
    fn a_bad_level_is_named() {
        for text in ["loud", "info,chancery=loud", "chancery::xds"] {
            let error = init(text, Format::Text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` is neither")), "{error}");
        }
        for text in ["info", "OFF", "warn,chancery::xds=debug", "chancery=trace"] {
            assert!(filter(text).is_some(), "{text}");
        }
    }
}
