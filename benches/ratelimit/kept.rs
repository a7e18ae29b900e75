//! What was measured, as it is kept between runs: this bench writes it, the report of the other one reads it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::records;

const FILE: &str = "ratelimit_service.json";
const SOAK: &str = "ratelimit_soak.json";
const AWAY: &str = "ratelimit_away.json";

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// A server that lets everything through.
    Noop,
    /// Ours, with its counters in memory,
    Memory,
    /// in a Redis that is asked for every request,
    Exact,
    /// or in a Redis that is asked for blocks of hits.
    Leased,
    Limitador,
    Envoyproxy,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Noop => "no decision",
            Self::Memory => "Chancery",
            Self::Exact => "Chancery, exact in Redis",
            Self::Leased => "Chancery, leased of Redis",
            Self::Limitador => "limitador 0.14",
            Self::Envoyproxy => "envoyproxy/ratelimit",
        }
    }
}

/// What is asked of a contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) rules: u64,
    /// Counters, of all rules together.
    pub(crate) keys: u64,
    /// Requests that are sent each second, whether answers come or not; else each follows an answer.
    pub(crate) rate: Option<u32>,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rules, {} keys", self.rules, self.keys)?;
        self.rate.map_or(Ok(()), |rate| write!(f, ", {rate}/s sent"))
    }
}

/// One round of one contender, or the medians of several.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    pub(crate) per_second: f64,
    /// For each second of the server's CPU time.
    pub(crate) per_cpu_second: f64,
    /// Microseconds of Redis's CPU time for each decision, of who uses it.
    pub(crate) redis: Option<f64>,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { per_second, per_cpu_second, redis, p50, p99 } = self;
        write!(f, "{per_second:.0}/s, {per_cpu_second:.0} per CPU second, p50 {p50:.3} ms, p99 {p99:.3} ms")?;
        redis.map_or(Ok(()), |micros| write!(f, ", {micros:.1} µs of Redis"))
    }
}

/// The medians of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) at: String,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<(Contender, Load, Round)>,
}

impl Kept {
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        records::write(FILE, self)
    }

    /// None if nothing was measured.
    pub(crate) fn read() -> anyhow::Result<Option<Self>> {
        records::read(FILE)
    }
}

/// What a flood of keys came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Soak {
    pub(crate) at: String,
    pub(crate) minutes: f64,
    /// Of every key.
    pub(crate) limit: u64,
    pub(crate) decisions: u64,
    /// That had a counter of their own when the table was full.
    pub(crate) counters: u64,
    /// MiB when the table was full, and the most from then on.
    pub(crate) full: f64,
    pub(crate) most: f64,
    /// That were let through, at most, of a user that was there before the flood, and of one that came with it.
    pub(crate) before: u64,
    pub(crate) during: u64,
}

impl Soak {
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        records::write(SOAK, self)
    }

    /// None if there was no flood.
    pub(crate) fn read() -> anyhow::Result<Option<Self>> {
        records::read(SOAK)
    }
}

/// What became of calls while Redis was there or not, by what it was and the failure mode.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Away {
    pub(crate) at: String,
    pub(crate) rows: Vec<(String, String, Answers)>,
}

/// Calls by the client's clock, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Answers {
    pub(crate) calls: usize,
    pub(crate) failed: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) most: f64,
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, failed, p50, p99, p999, most } = self;
        write!(f, "{calls} calls, {failed} failed: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, ")?;
        write!(f, "most {most:.2} ms")
    }
}

impl Away {
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        records::write(AWAY, self)
    }

    /// None if that was not measured.
    pub(crate) fn read() -> anyhow::Result<Option<Self>> {
        records::read(AWAY)
    }
}
