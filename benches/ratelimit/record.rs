//! Rounds as they are measured.

use super::kept::{Contender, Kept, Load, Round};

/// Rounds by contender and what was asked of it.
#[derive(Debug, Default)]
pub(crate) struct Record(Vec<(Contender, Load, Vec<Round>)>);

impl Record {
    pub(crate) fn add(&mut self, contender: Contender, load: Load, round: Round) {
        match self.0.iter_mut().find(|(known, of, _)| (*known, *of) == (contender, load)) {
            Some((.., rounds)) => rounds.push(round),
            None => self.0.push((contender, load, vec![round])),
        }
    }

    /// The medians.
    pub(crate) fn kept(&self) -> Kept {
        Kept {
            at: jiff::Timestamp::now().to_string(),
            rounds: self.0.iter().map(|(.., rounds)| rounds.len()).min().unwrap_or_default(),
            rows: self.0.iter().map(|(of, load, rounds)| (*of, *load, medians(rounds))).collect(),
        }
    }
}

fn medians(rounds: &[Round]) -> Round {
    let median = |of: fn(&Round) -> Option<f64>| {
        let mut values: Vec<f64> = rounds.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let always = |of| median(of).unwrap_or(f64::NAN);
    Round {
        per_second: always(|round| Some(round.per_second)),
        per_cpu_second: always(|round| Some(round.per_cpu_second)),
        redis: median(|round| round.redis),
        p50: always(|round| Some(round.p50)),
        p99: always(|round| Some(round.p99)),
    }
}
