//! `check`: what is wrong, approximated or ignored in manifests.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Cell, Colour, Style, table};
use super::{Compiled, settings};
use crate::settings::Settings;
use crate::values::{Finding, Severity};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and folders of manifests
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// How findings are printed
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
    #[command(flatten)]
    settings: settings::Args,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Exits with 1 where there is an error.
pub(super) fn execute(
    args: Args,
    compile: fn(Settings, &[PathBuf]) -> anyhow::Result<Compiled>,
) -> anyhow::Result<ExitCode> {
    let mut compiled = compile(args.settings.settings(), &args.paths)?;
    compiled.findings.sort();
    compiled.findings.dedup();
    let text = match args.output {
        Output::Text => text(&compiled, Style::of_stdout()),
        Output::Json => json(&compiled)?,
    };
    output::print(&text)?;
    Ok(if errors(&compiled) > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn errors(compiled: &Compiled) -> usize {
    count(compiled, Severity::Error)
}

fn count(compiled: &Compiled, severity: Severity) -> usize {
    compiled.findings.iter().filter(|finding| finding.severity == severity).count()
}

fn json(compiled: &Compiled) -> anyhow::Result<String> {
    let json = json!({
        "findings": compiled.findings,
        "errors": errors(compiled),
        "warnings": count(compiled, Severity::Warning),
        "infos": count(compiled, Severity::Info),
    });
    Ok(serde_json::to_string_pretty(&json)? + "\n")
}

/// The findings, one a line, and a line that counts them.
fn text(compiled: &Compiled, style: Style) -> String {
    let rows: Vec<Vec<Cell>> = compiled.findings.iter().map(row).collect();
    table(&rows, style) + &summary(compiled, style)
}

fn row(finding: &Finding) -> Vec<Cell> {
    let field = if finding.field.is_empty() { String::new() } else { format!("{}:", finding.field) };
    vec![
        Cell::coloured(finding.severity.to_string(), finding.severity.into()),
        Cell::new(finding.object.to_string()),
        Cell::new(field),
        Cell::new(format!("{} ({})", finding.message, finding.reason)),
    ]
}

fn summary(compiled: &Compiled, style: Style) -> String {
    let counts = [
        (errors(compiled), "error", Colour::Red),
        (count(compiled, Severity::Warning), "warning", Colour::Yellow),
        (count(compiled, Severity::Info), "info", Colour::Blue),
    ];
    if counts.iter().all(|(count, ..)| *count == 0) {
        return style.paint(Colour::Green, "nothing found") + "\n";
    }
    let said: Vec<String> = counts
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, noun, colour)| {
            let plural = if count == 1 { "" } else { "s" };
            style.paint(colour, &format!("{count} {noun}{plural}"))
        })
        .collect();
    said.join(", ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Kind, ObjectKey};

    fn compiled() -> Compiled {
        let finding = |severity, kind, namespace, field: &str| Finding {
            severity,
            object: ObjectKey::new(kind, namespace, "api"),
            field: field.into(),
            reason: "InvalidPath",
            message: "a path begins with `/`".into(),
        };
        Compiled {
            snapshot: Default::default(),
            findings: vec![
                finding(Severity::Error, Kind::Ingress, "shop", "spec.rules[0]"),
                finding(Severity::Warning, Kind::IngressClass, "", ""),
            ],
            unreadable: vec![],
        }
    }

    #[test]
    fn findings_are_one_line_each() {
        assert_eq!(
            text(&compiled(), Style::PLAIN),
            "error Ingress/shop/api spec.rules[0]: a path begins with `/` (InvalidPath)\n\
             warning IngressClass/api a path begins with `/` (InvalidPath)\n\
             1 error, 1 warning\n"
        );
        for finding in compiled().findings {
            assert!(text(&compiled(), Style::PLAIN).contains(&format!("{finding}\n")));
        }
    }

    #[test]
    fn json_counts_too() {
        let json: serde_json::Value = serde_json::from_str(&json(&compiled()).unwrap()).unwrap();
        assert_eq!((&json["errors"], &json["warnings"], &json["infos"]), (&json!(1), &json!(1), &json!(0)));
        assert_eq!(json["findings"][0]["object"]["kind"], "Ingress");
        assert_eq!(json["findings"][0]["severity"], "error");
    }
}
