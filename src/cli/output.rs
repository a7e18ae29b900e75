//! Text for people: colours and aligned columns on a terminal, plain lines in a pipe.

use std::io::{self, IsTerminal as _, Write as _};

use crate::telemetry::colours;
use crate::values::Severity;

/// Prints an error and its causes on one line of standard error.
pub(super) fn error(error: &anyhow::Error) {
    let text = with_causes(error);
    let stderr = io::stderr();
    let label = if colours(&stderr) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    // There is nobody left to be told if standard error is gone.
    let _ = writeln!(stderr.lock(), "{label} {text}");
}

/// An error and its causes; a cause that the text before has already is left out.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Prints a finding that stands in the way of what was asked, on one line of standard error.
pub(super) fn warn(finding: &str) {
    // As for errors.
    let _ = writeln!(io::stderr().lock(), "{finding}");
}

/// Prints text to standard output. A reader that has gone away (`| head`) is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// How standard output is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Whether columns are aligned.
    pub(super) table: bool,
    /// Whether colours are used.
    pub(super) colour: bool,
}

impl Style {
    /// Neither columns nor colours.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { table: false, colour: false };

    /// What fits standard output.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        Self { table: stdout.is_terminal(), colour: colours(&stdout) }
    }

    /// The text in a colour.
    pub(super) fn paint(self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// A colour, as its ANSI code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Dim = 2,
}

impl From<Severity> for Colour {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Error => Self::Red,
            Severity::Warning => Self::Yellow,
            Severity::Info => Self::Blue,
        }
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), colour: None }
    }

    pub(super) fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: text.into(), colour: Some(colour) }
    }
}

/// Rows with their columns aligned, or separated by one space each where no table is wanted. The last column is not
/// padded. An empty cell takes no place in plain lines.
pub(super) fn table(rows: &[Vec<Cell>], style: Style) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.text.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            if !style.table && cell.text.is_empty() {
                continue;
            }
            let painted =
                cell.colour.map_or_else(|| cell.text.clone(), |colour| style.paint(colour, &cell.text));
            line.push_str(&painted);
            let gap = if style.table { width - cell.text.chars().count() + 2 } else { 1 };
            line.extend(std::iter::repeat_n(' ', gap));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error =
            anyhow::anyhow!("no such file").context("cannot read a: no such file").context("cannot start");
        assert_eq!(with_causes(&error), "cannot start: cannot read a: no such file");
    }

    #[test]
    fn columns_align_on_a_terminal_only() {
        let rows = [
            vec![Cell::coloured("error", Colour::Red), Cell::new("a"), Cell::new("x")],
            vec![Cell::new("info"), Cell::new(""), Cell::new("y z")],
        ];
        assert_eq!(table(&rows, Style::PLAIN), "error a x\ninfo y z\n");
        assert_eq!(table(&rows, Style { table: true, colour: false }), "error  a  x\ninfo      y z\n");
        assert_eq!(
            table(&rows, Style { table: true, colour: true }),
            "\x1b[31merror\x1b[0m  a  x\ninfo      y z\n"
        );
    }
}
