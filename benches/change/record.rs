//! What one run measured, as it is kept between runs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::records;

/// Where the statuses are kept.
const STATUSES: &str = "statuses.json";

/// Where the manifests are.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// In a folder.
    #[default]
    Files,
    /// In a real API server.
    Kubernetes,
}

/// How routes are laid out in Envoy, or who pushes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    /// Chancery's: one small RouteConfiguration a host, found by scope.
    Scoped,
    /// One RouteConfiguration for all hosts.
    OneTable,
    /// Chancery's layout; what an endpoint's edit comes to was made before. Kubernetes only.
    Pusher,
}

impl Layout {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Scoped => "Chancery",
            Self::OneTable => "one RouteConfiguration",
            Self::Pusher => "pusher of prebuilt resources",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Scoped => "scoped",
            Self::OneTable => "one-table",
            Self::Pusher => "pusher",
        }
    }

    /// The name of a file of its own.
    pub(crate) fn file(self, of: &str, extension: &str) -> String {
        format!("{of}-{}.{extension}", self.word())
    }
}

/// One number of hosts in one layout.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(default)]
    pub(crate) source: Source,
    pub(crate) layout: Layout,
    pub(crate) hosts: usize,
    pub(crate) services: usize,
    /// When, in RFC 3339.
    pub(crate) at: String,
    /// From start to the last host served, in milliseconds.
    pub(crate) starts: Vec<Start>,
    /// Seconds until every host had been requested once more.
    pub(crate) every_host: f64,
    /// Memory once every host was requested.
    pub(crate) memory_loaded: Memory,
    /// One edit of an Ingress.
    pub(crate) route: Option<Series>,
    /// One edit of an EndpointSlice.
    pub(crate) endpoint: Option<Series>,
    /// The same while others are edited all the time.
    #[serde(default)]
    pub(crate) route_churned: Option<Series>,
    /// The same while others are edited all the time.
    #[serde(default)]
    pub(crate) endpoint_churned: Option<Series>,
    /// Memory at the end, and the most there was.
    pub(crate) memory: Memory,
    /// Polls that were not answered with 200.
    pub(crate) lost: usize,
}

/// A start, in milliseconds from the first process's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// The last host was served.
    pub(crate) served: f64,
    /// CPU of the control plane by then.
    pub(crate) control_plane_cpu: f64,
    /// CPU of Envoy by then.
    pub(crate) envoy_cpu: f64,
}

/// Edits of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    /// From the rename, or the API server's answer, to the first response served the new way, in milliseconds, sorted.
    pub(crate) served: Vec<f64>,
    /// Edits without polling, over which the rest is taken.
    pub(crate) unpolled: usize,
    /// CPU of the control plane an edit, in milliseconds.
    pub(crate) control_plane_cpu: f64,
    /// CPU of Envoy an edit, in milliseconds.
    pub(crate) envoy_cpu: f64,
    /// What was sent an edit, by type.
    pub(crate) sent: BTreeMap<String, Sent>,
}

/// What was sent of a type.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) resources: f64,
    pub(crate) bytes: f64,
}

/// Resident memory in MiB.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) control_plane: f64,
    pub(crate) control_plane_peak: f64,
    pub(crate) envoy: f64,
    pub(crate) envoy_peak: f64,
}

impl Series {
    /// Of how long each edit took.
    pub(crate) fn of(mut served: Vec<f64>) -> Self {
        served.sort_by(f64::total_cmp);
        Self { served, unpolled: 0, control_plane_cpu: 0.0, envoy_cpu: 0.0, sent: BTreeMap::new() }
    }

    /// The value below which this share of the edits lies.
    pub(crate) fn percentile(&self, share: f64) -> f64 {
        percentile(&self.served, share)
    }

    pub(crate) fn bytes(&self) -> f64 {
        self.sent.values().map(|sent| sent.bytes).sum()
    }

    pub(crate) fn resources(&self) -> f64 {
        self.sent.values().map(|sent| sent.resources).sum()
    }
}

/// The nearest rank.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

impl Record {
    pub(crate) fn median_start(&self) -> f64 {
        let mut served: Vec<_> = self.starts.iter().map(|start| start.served).collect();
        served.sort_by(f64::total_cmp);
        percentile(&served, 0.5)
    }

    fn path(&self) -> PathBuf {
        let layout = self.layout.word();
        let source = match self.source {
            Source::Files => "",
            Source::Kubernetes => "kubernetes-",
        };
        let kind = if self.endpoint.is_some() { "edits" } else { "starts" };
        folder().join(format!("{source}{kind}-{layout}-{}-{}.json", self.hosts, self.services))
    }

    /// Keeps it instead of the one of the same kind that was measured before.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder())?;
        std::fs::write(self.path(), serde_json::to_vec_pretty(self)?)?;
        Ok(())
    }

    /// All that are kept, by layout, hosts and services; none if nothing was measured yet.
    pub(crate) fn kept() -> anyhow::Result<Vec<Record>> {
        let mut records = Vec::new();
        std::fs::create_dir_all(folder())?;
        for entry in std::fs::read_dir(folder())? {
            let path = entry?.path();
            let record: Record =
                serde_json::from_slice(&std::fs::read(&path)?).with_context(|| path.display().to_string())?;
            records.push(record);
        }
        records.sort_by_key(|record| (record.source, record.layout, record.services, record.hosts));
        Ok(records)
    }
}

/// How the statuses of all Ingresses were written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Statuses {
    pub(crate) ingresses: usize,
    /// When, in RFC 3339.
    pub(crate) at: String,
    pub(crate) rounds: Vec<Round>,
}

/// Of Ingresses without a status, once.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Round {
    /// From the control plane's start to the last status, in milliseconds.
    pub(crate) last: f64,
    /// CPU of the control plane by then, in milliseconds.
    pub(crate) control_plane_cpu: f64,
    /// CPU of the API server and its etcd by then, in milliseconds.
    pub(crate) api_server_cpu: f64,
    /// Writes of statuses and Events, as the API server counts them.
    pub(crate) writes: usize,
    /// Those of a control plane that starts when every status is there.
    pub(crate) unchanged: usize,
}

impl Statuses {
    pub(crate) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut values: Vec<_> = self.rounds.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        percentile(&values, 0.5)
    }

    /// The most of all rounds.
    pub(crate) fn most(&self, of: impl Fn(&Round) -> usize) -> usize {
        self.rounds.iter().map(of).max().unwrap_or_default()
    }

    /// Keeps it instead of the one that was measured before.
    pub(crate) fn keep(&self) -> anyhow::Result<()> {
        records::write(STATUSES, self)
    }

    /// What was kept, if anything was.
    pub(crate) fn kept() -> anyhow::Result<Option<Self>> {
        records::read(STATUSES)
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} Ingresses without a status", self.ingresses)?;
        for round in &self.rounds {
            write!(
                f,
                "\n  the last one has it after {:.0} ms (CPU: control plane {:.0} ms, API server {:.0} ms), {} writes; {} when nothing changed",
                round.last, round.control_plane_cpu, round.api_server_cpu, round.writes, round.unchanged
            )?;
        }
        Ok(())
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("change")
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layout, source) = (self.layout.name(), self.source);
        writeln!(f, "{layout}, {source:?}, {} hosts, {} Services", self.hosts, self.services)?;
        for start in &self.starts {
            writeln!(
                f,
                "  start: last host served after {:.0} ms (CPU: control plane {:.0} ms, Envoy {:.0} ms)",
                start.served, start.control_plane_cpu, start.envoy_cpu
            )?;
        }
        writeln!(f, "  every host requested in {:.1} s", self.every_host)?;
        for (name, series) in [
            ("Ingress", &self.route),
            ("EndpointSlice", &self.endpoint),
            ("under churn, Ingress", &self.route_churned),
            ("under churn, EndpointSlice", &self.endpoint_churned),
        ] {
            let Some(series) = series else { continue };
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| series.percentile(share));
            write!(
                f,
                "  {name} edit: p50 {p50:.2} p90 {p90:.2} p99 {p99:.2} max {max:.2} ms ({} edits)",
                series.served.len(),
            )?;
            if series.unpolled > 0 {
                write!(
                    f,
                    "; CPU: control plane {:.2} ms, Envoy {:.2} ms; {:.2} resources, {:.0} bytes sent ({} edits)",
                    series.control_plane_cpu,
                    series.envoy_cpu,
                    series.resources(),
                    series.bytes(),
                    series.unpolled,
                )?;
            }
            writeln!(f)?;
        }
        for (when, memory) in [("loaded", &self.memory_loaded), ("at the end", &self.memory)] {
            writeln!(
                f,
                "  memory {when}: control plane {:.0} MiB (peak {:.0}), Envoy {:.0} MiB (peak {:.0})",
                memory.control_plane, memory.control_plane_peak, memory.envoy, memory.envoy_peak
            )?;
        }
        write!(f, "  polls not answered with 200: {}", self.lost)
    }
}
