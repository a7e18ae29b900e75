//! What was measured, as it is kept between runs; the report of the other bench reads it, too.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::contender::Contender;

/// One round of one contender.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// For each second of the server's CPU time.
    pub(crate) per_cpu_second: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, per_cpu_second, p50, p99 } = self;
        write!(f, "{per_second:.0}/s, {per_cpu_second:.0} per CPU second, p50 {p50:.2} ms, p99 {p99:.2} ms")
    }
}

/// Rounds by contender and number of rules.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record(Vec<(Contender, usize, Vec<Round>)>);

impl Record {
    pub(crate) fn add(&mut self, contender: Contender, rules: usize, round: Round) {
        match self.0.iter_mut().find(|(known, of, _)| (*known, *of) == (contender, rules)) {
            Some((.., rounds)) => rounds.push(round),
            None => self.0.push((contender, rules, vec![round])),
        }
    }

    /// The file between runs.
    fn path() -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("ratelimit.json")
    }

    /// Keeps the medians, in the form that the report prints.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        std::fs::write(Self::path(), serde_json::to_vec_pretty(&self.kept())?)?;
        Ok(())
    }

    fn kept(&self) -> Kept {
        let name = |contender: Contender, rules| (contender.name().to_owned(), rules);
        Kept {
            at: jiff::Timestamp::now().to_string(),
            rows: self.0.iter().map(|(of, rules, rounds)| (name(*of, *rules), medians(rounds))).collect(),
            rounds: self.0.iter().map(|(.., rounds)| rounds.len()).min().unwrap_or_default(),
        }
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for (contender, rules, rounds) in &self.0 {
            text += &format!("{:<16} {rules:>6} rules  {}\n", contender.name(), medians(rounds));
        }
        text
    }
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) at: String,
    pub(crate) rounds: usize,
    /// By name of the contender and number of rules.
    pub(crate) rows: Vec<((String, usize), Round)>,
}

fn medians(rounds: &[Round]) -> Round {
    let median = |of: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    Round {
        per_second: median(|round| round.per_second),
        per_cpu_second: median(|round| round.per_cpu_second),
        p50: median(|round| round.p50),
        p99: median(|round| round.p99),
    }
}
