//! The format of a case file: one YAML document, every key and value known or refused by name.

pub(crate) mod step;
pub(crate) mod values;

use crate::{yaml, yaml_de};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use step::{RawStep, Step};
use values::{BackendKey, Network, OneOrMany, ServiceName, Span, Status};

/// A case, as read and checked.
#[derive(Debug)]
pub(crate) struct Case {
    /// Unique over a run.
    pub(crate) name: String,
    /// Which modes the case is for; all by default.
    pub(crate) modes: Option<Vec<Mode>>,
    /// Why the case is for some modes only.
    pub(crate) reason: Option<String>,
    /// Further flags of the control plane, `{geoip}` and `{redis}` not yet filled in.
    pub(crate) args: Vec<String>,
    /// The text of each entry of `manifests`, files read.
    pub(crate) manifests: Vec<String>,
    pub(crate) backends: BTreeMap<BackendKey, Backend>,
    pub(crate) certs: BTreeMap<ServiceName, Cert>,
    pub(crate) geoip: BTreeMap<Network, Place>,
    pub(crate) services: Vec<BackingService>,
    pub(crate) steps: Vec<Step>,
}

/// How the control plane gets its manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    Files,
    Kubernetes,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Files => "files",
            Mode::Kubernetes => "kubernetes",
        })
    }
}

/// A real service that is started beside the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BackingService {
    Redis,
}

/// What the echo servers of one `namespace/service:port` are like.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backend {
    pub(crate) replicas: u32,
    pub(crate) protocol: Protocol,
    /// The status of every answer.
    pub(crate) status: Option<Status>,
    /// How long an answer waits.
    pub(crate) delay: Option<Span>,
    /// How many first requests of the key, over all replicas, get 503.
    pub(crate) fail_first: u64,
    pub(crate) response_headers: BTreeMap<String, OneOrMany<String>>,
    /// Stands in for the JSON of an answer.
    pub(crate) body: Option<String>,
    /// Whether the endpoints are published as ready.
    pub(crate) ready: bool,
    pub(crate) auth: Option<Auth>,
    /// The Service exists and has no endpoints.
    pub(crate) none: bool,
    /// Labels of the replicas' Pods: one map for all, or one a replica.
    pub(crate) labels: Option<OneOrMany<BTreeMap<String, String>>>,
}

impl Default for Backend {
    fn default() -> Self {
        Backend {
            replicas: 1,
            protocol: Protocol::Http,
            status: None,
            delay: None,
            fail_first: 0,
            response_headers: BTreeMap::new(),
            body: None,
            ready: true,
            auth: None,
            none: false,
            labels: None,
        }
    }
}

/// What an echo server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/1.1 and h2c with prior knowledge, on one port.
    Http,
    /// The same over TLS.
    Https,
    /// HTTP/2 with prior knowledge; unary gRPC of any service and method.
    Grpc,
    /// Websocket echo; plain requests are answered as by `http`.
    Ws,
}

/// An external auth service: a known value of `header` gets 200 and its headers, any other request 401.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) header: String,
    pub(crate) allow: BTreeMap<String, BTreeMap<String, String>>,
}

/// A Secret with a certificate signed by the case's CA, or with that CA alone.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cert {
    pub(crate) dns: Vec<String>,
    pub(crate) cn: Option<String>,
    pub(crate) client: bool,
    /// How long it is valid from now; negative for one that has expired.
    pub(crate) days: i64,
    pub(crate) ca: bool,
    pub(crate) with_ca: bool,
}

impl Default for Cert {
    fn default() -> Self {
        Cert { dns: Vec::new(), cn: None, client: false, days: 30, ca: false, with_ca: false }
    }
}

/// What the MaxMind database says of a network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    pub(crate) country: Option<String>,
    pub(crate) continent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCase {
    name: String,
    #[serde(rename = "about")]
    _about: Option<String>,
    #[serde(rename = "source")]
    _source: Option<OneOrMany<String>>,
    modes: Option<Vec<Mode>>,
    reason: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    manifests: Vec<Manifest>,
    #[serde(default)]
    backends: BTreeMap<BackendKey, Backend>,
    #[serde(default)]
    certs: BTreeMap<ServiceName, Cert>,
    #[serde(default)]
    geoip: BTreeMap<Network, Place>,
    #[serde(default)]
    services: Vec<BackingService>,
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Relative to the case file.
    file: Option<PathBuf>,
    inline: Option<String>,
}

impl Case {
    /// Reads the case file at `path` and the manifests it names.
    pub(crate) fn load(path: &Path) -> Result<Case> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Case::parse(&text, path.parent().unwrap_or(Path::new(".")))
    }

    /// Reads a case; manifests' files are relative to `folder`.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Case> {
        let raw: RawCase = yaml_de::from_node(&yaml::parse(text)?)?;
        if raw.steps.is_empty() {
            bail!("steps: a case without steps checks nothing");
        }
        let steps = raw.steps.into_iter().enumerate();
        Ok(Case {
            name: raw.name,
            modes: raw.modes,
            reason: raw.reason,
            args: raw.args,
            manifests: raw
                .manifests
                .into_iter()
                .map(|manifest| manifest.read(folder))
                .collect::<Result<_>>()?,
            backends: raw.backends,
            certs: raw.certs,
            geoip: raw.geoip,
            services: raw.services,
            steps: steps
                .map(|(index, step)| step.checked().with_context(|| format!("steps[{index}]")))
                .collect::<Result<_>>()?,
        })
    }

    /// Whether the case is for this mode.
    pub(crate) fn runs_in(&self, mode: Mode) -> bool {
        self.modes.as_ref().is_none_or(|modes| modes.contains(&mode))
    }
}

impl Manifest {
    fn read(self, folder: &Path) -> Result<String> {
        match (self.file, self.inline) {
            (Some(file), None) => {
                let path = folder.join(file);
                std::fs::read_to_string(&path)
                    .with_context(|| format!("manifests: cannot read {}", path.display()))
            }
            (None, Some(text)) => Ok(text),
            _ => bail!("manifests: an entry has either `file` or `inline`"),
        }
    }
}
