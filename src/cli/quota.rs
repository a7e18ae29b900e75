//! `quota`: what single keys have left of their limits, and what is done about it.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{self, Asked};
use super::output::{self, Cell, Colour, Style, table};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The control plane's debug endpoint, or the --http-listen of a rate limit service alone
    #[arg(long, global = true, value_name = "HOST:PORT", default_value = "127.0.0.1:18001")]
    server: String,
    /// File with the token that the server's --quota-token-file has; its first line, or the last word of that
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How quotas are printed
    #[arg(long, short, global = true, value_enum, value_name = "FORMAT", default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the keys with the most hits
    List {
        /// Of this limit alone: its id, or the place of a rule
        limit: Option<String>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        max: u32,
    },
    /// Print what a key has left
    Get(Subject),
    /// Forget what a key has used
    Reset(Subject),
    /// Let a key have more hits in its present window
    Grant {
        /// How many more
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
        hits: u64,
        #[command(flatten)]
        subject: Subject,
    },
}

#[derive(Debug, clap::Args)]
#[command(
    override_usage = "chancery quota <get|reset|grant --hits N> <LIMIT [KEY]...|--fingerprint HEX|--domain DOMAIN --entry KEY=VALUE...> [--rate RATE]"
)]
struct Subject {
    /// The limit's id, as `list` and /debug/ratelimits have it
    #[arg(required_unless_present_any = ["fingerprint", "domain"])]
    limit: Option<String>,
    /// The values that it counts by; `-` is read from standard input, a line each, so that no credential stands on the
    /// command line
    key: Vec<String>,
    /// The key by what `list` calls it
    #[arg(long, value_name = "HEX", conflicts_with_all = ["limit", "domain"])]
    fingerprint: Option<String>,
    /// The domain of a rule of envoyproxy/ratelimit
    #[arg(long, value_name = "DOMAIN", requires = "entry", conflicts_with = "limit")]
    domain: Option<String>,
    /// An entry of a descriptor in that domain, in order
    #[arg(long, value_name = "KEY=VALUE", requires = "domain", value_parser = entry)]
    entry: Vec<(String, String)>,
    /// The rate whose counter is meant, such as 100r/m, where keys are counted by what the auth service's answer says; the one
    /// that was told last unless given
    #[arg(long, value_name = "RATE", conflicts_with = "domain")]
    rate: Option<String>,
}

fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() { Err("expected KEY=VALUE".to_owned()) } else { Ok((key.into(), value.into())) }
}

impl Subject {
    fn json(&self) -> anyhow::Result<Value> {
        let mut subject = self.key()?;
        if let Some(rate) = &self.rate {
            subject["rate"] = rate.as_str().into();
        }
        Ok(subject)
    }

    fn key(&self) -> anyhow::Result<Value> {
        if let Some(fingerprint) = &self.fingerprint {
            return Ok(json!({"fingerprint": fingerprint}));
        }
        if let Some(domain) = &self.domain {
            let entries = self.entry.iter().map(|(key, value)| json!({"key": key, "value": value}));
            return Ok(json!({"domain": domain, "entries": entries.collect::<Vec<_>>()}));
        }
        let mut lines = std::io::stdin().lock().lines();
        let mut value = |value: &String| match value.as_str() {
            "-" => match lines.next() {
                Some(line) => line.context("cannot read a key from standard input"),
                None => bail!("standard input has no line for a key"),
            },
            _ => Ok(value.clone()),
        };
        let key = self.key.iter().map(&mut value).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(json!({"limit": self.limit, "key": key}))
    }
}

/// What is printed of a quota.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quota {
    limit: String,
    key: Vec<String>,
    fingerprint: String,
    plan: String,
    requests: u32,
    window_ms: u64,
    remaining: u64,
    granted: u64,
    reset_ms: u64,
    hits: u64,
    denied: u64,
}

pub(super) fn execute(args: &Args) -> anyhow::Result<ExitCode> {
    let token = args.token_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read the token in {}", path.display()))?;
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        let token = line.and_then(|line| line.split_whitespace().last());
        token.map(str::to_owned).with_context(|| format!("there is no token in {}", path.display()))
    });
    let token = token.transpose()?;
    let post = |path: &str, body: Value| (path.to_owned(), Some(body));
    let (path, body) = match &args.action {
        Action::List { limit, max } => (list(limit.as_deref(), *max), None),
        Action::Get(subject) => post("/v1/quotas/get", json!({"subject": subject.json()?})),
        Action::Reset(subject) => post("/v1/quotas/reset", json!({"subject": subject.json()?})),
        Action::Grant { hits, subject } => {
            post("/v1/quotas/grant", json!({"subject": subject.json()?, "hits": hits}))
        }
    };
    let asked = Asked { token: token.as_deref(), body: body.as_ref() };
    let answer = client::runtime()?.block_on(client::ask(&args.server, &path, asked))?;
    let answer: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&answer)? + "\n",
        Output::Text => {
            let quotas = match &answer["quota"] {
                Value::Null => serde_json::from_value(answer["quotas"].clone()),
                one => serde_json::from_value(one.clone()).map(|quota| vec![quota]),
            };
            text(&quotas.context("the answer is not of quotas")?, Style::of_stdout())
        }
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn list(limit: Option<&str>, max: u32) -> String {
    let escaped = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'/' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let limit = limit.map(|limit| format!("&limit={}", limit.bytes().map(escaped).collect::<String>()));
    format!("/v1/quotas?max={max}{}", limit.unwrap_or_default())
}

fn text(quotas: &[Quota], style: Style) -> String {
    if quotas.is_empty() {
        return "no key has been counted\n".to_owned();
    }
    let style = Style { table: true, ..style };
    let header = ["LIMIT", "KEY", "FINGERPRINT", "PLAN", "LEFT", "GRANTED", "OF", "RESET", "HITS", "DENIED"];
    let mut rows = vec![header.map(|title| Cell::coloured(title, Colour::Dim)).to_vec()];
    rows.extend(quotas.iter().map(row));
    table(&rows, style)
}

fn row(quota: &Quota) -> Vec<Cell> {
    let known = |text: &str| Cell::new(if text.is_empty() { "-" } else { text });
    let left = match quota.remaining {
        0 => Cell::coloured("0", Colour::Red),
        left => Cell::new(left.to_string()),
    };
    let of = match quota.window_ms {
        0 => format!("{} at once", quota.requests),
        window => format!("{}/{}", quota.requests, span(window)),
    };
    vec![
        known(&quota.limit),
        known(&quota.key.join(" ")),
        known(&quota.fingerprint),
        known(&quota.plan),
        left,
        Cell::new(quota.granted.to_string()),
        Cell::new(of),
        Cell::new(span(quota.reset_ms)),
        Cell::new(quota.hits.to_string()),
        Cell::new(quota.denied.to_string()),
    ]
}

/// A span in the largest unit that it is a whole number of, but no smaller than seconds.
fn span(ms: u64) -> String {
    match ms.div_ceil(1_000) {
        s if s > 0 && s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s > 0 && s % 3_600 == 0 => format!("{}h", s / 3_600),
        s if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn read(line: &str) -> Result<Args, clap::Error> {
        Line::try_parse_from(std::iter::once("quota").chain(line.split(' '))).map(|line| line.args)
    }

    #[test]
    fn subjects() {
        for (line, expected) in [
            ("get a/b", json!({"limit": "a/b", "key": []})),
            ("reset a/b k l", json!({"limit": "a/b", "key": ["k", "l"]})),
            ("get --fingerprint 0123", json!({"fingerprint": "0123"})),
            ("reset a/b k --rate 9r/d", json!({"limit": "a/b", "key": ["k"], "rate": "9r/d"})),
            (
                "grant --hits 5 --domain d --entry k=v --entry l=a=b",
                json!({"domain": "d", "entries": [{"key": "k", "value": "v"}, {"key": "l", "value": "a=b"}]}),
            ),
        ] {
            let args = read(line).unwrap();
            let (Action::Get(subject) | Action::Reset(subject) | Action::Grant { subject, .. }) = args.action
            else {
                panic!("{line}")
            };
            assert_eq!(subject.json().unwrap(), expected, "{line}");
        }
        for bad in [
            "get",
            "grant a k",
            "grant --hits 0 a k",
            "get --domain d",
            "get --domain d --entry k",
            "get a --fingerprint 0",
            "get --domain d --entry k=v --rate 1r/s",
            "list --max 0",
            "frob",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(read("list --server a:1 x").unwrap().server, "a:1");
        assert_eq!(list(Some("a/b c&é"), 5), "/v1/quotas?max=5&limit=a/b%20c%26%C3%A9");
    }

    #[test]
    fn a_table_of_quotas() {
        let quota = |remaining: u64, window_ms: u64| {
            json!({"limit": "l", "key": ["[redacted]", "/p"], "fingerprint": "00", "plan": "", "requests": 5,
                "windowMs": window_ms, "remaining": remaining, "granted": 0, "resetMs": 1, "hits": 7, "denied": 2})
        };
        let quotas: Vec<Quota> = serde_json::from_value(json!([quota(3, 3_600_000), quota(0, 0)])).unwrap();
        assert_eq!(
            text(&quotas, Style::PLAIN),
            "LIMIT  KEY            FINGERPRINT  PLAN  LEFT  GRANTED  OF         RESET  HITS  DENIED\n\
             l      [redacted] /p  00           -     3     0        5/1h       1s     7     2\n\
             l      [redacted] /p  00           -     0     0        5 at once  1s     7     2\n"
        );
        assert_eq!(text(&[], Style::PLAIN), "no key has been counted\n");
    }
}
