//! The manifests, in a folder or in an API server, and edits of them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::backends::{BACKENDS, Backends, body};
use super::cluster::Cluster;
use super::manifests::{Random, endpoint_slice, host_name, ingress, service, service_of};
use super::record::Source;

/// The manifests, which end with this.
pub(crate) struct Workload {
    /// For files of whoever measures; holds the folder that is followed, and beside it the one where files are written.
    home: tempfile::TempDir,
    cluster: Option<Cluster>,
    services: usize,
    address: Ipv4Addr,
    ports: Vec<[u16; 2]>,
    /// By host: the Service of its first path.
    routes: Vec<usize>,
    /// By Service: which of its ports it has.
    chosen: Vec<usize>,
    random: Random,
}

/// What is edited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Ingress,
    EndpointSlice,
}

/// Which hosts and Services an edit may pick. Measured edits and churn keep out of each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Picks {
    /// Any host.
    All,
    /// Not what churns.
    Still,
    /// What churns: the first tenth of the hosts, the first Service.
    Churning,
}

/// An edit that is prepared.
pub(crate) struct Edit {
    change: Change,
    /// Where it shows.
    pub(crate) host: String,
    /// What is answered there after it.
    pub(crate) expected: String,
}

enum Change {
    /// A file that is written but for its rename.
    Rename { staged: PathBuf, path: PathBuf },
    /// An object of the API server.
    Merge(Value),
}

impl Workload {
    pub(crate) fn new(
        source: Source,
        hosts: usize,
        services: usize,
        backends: &Backends,
    ) -> anyhow::Result<Self> {
        let this = Self {
            home: tempfile::tempdir()?,
            cluster: match source {
                Source::Files => None,
                Source::Kubernetes => Some(Cluster::start()?),
            },
            services,
            address: backends.address,
            ports: backends.ports.clone(),
            routes: (0..hosts).map(|host| service_of(host, 0, services)).collect(),
            chosen: vec![0; services],
            random: Random::new(),
        };
        let described = (0..services).flat_map(|number| {
            [(service_file(number), service(number)), (slice_file(number), this.slice(number))]
        });
        let routing = (0..hosts).map(|host| (ingress_file(host), ingress(host, this.routes[host], services)));
        let mut objects = described.chain(routing);
        if let Some(cluster) = &this.cluster {
            cluster.create(objects.map(|(_, object)| object))?;
        } else {
            std::fs::create_dir(this.folder())?;
            std::fs::create_dir(this.staged())?;
            objects.try_for_each(|(file, object)| write(&this.folder().join(file), &object))?;
        }
        Ok(this)
    }

    /// How the control plane is told what to follow.
    pub(crate) fn source_flag(&self) -> [PathBuf; 2] {
        match &self.cluster {
            None => ["--manifests".into(), self.folder()],
            Some(cluster) => ["--kubeconfig".into(), cluster.kubeconfig()],
        }
    }

    /// The folder that is followed, or the kubeconfig.
    pub(crate) fn place(&self) -> PathBuf {
        let [_, place] = self.source_flag();
        place
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("manifests")
    }

    fn staged(&self) -> PathBuf {
        self.home.path().join("staged")
    }

    /// For files of whoever measures.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn last_host(&self) -> String {
        host_name(self.routes.len() - 1)
    }

    /// What a host's first path is answered with.
    fn expected(&self, host: usize) -> String {
        let service = self.routes[host];
        body(service % BACKENDS, self.chosen[service])
    }

    /// Every host, and what its first path is answered with.
    pub(crate) fn expectations(&self) -> impl Iterator<Item = (String, String)> + '_ {
        (0..self.routes.len()).map(|host| (host_name(host), self.expected(host)))
    }

    /// The next edit: of a random host, or of the Service behind its first path.
    pub(crate) fn edit(&mut self, kind: Kind, picks: Picks) -> anyhow::Result<Edit> {
        let host = self.pick(kind, picks);
        let (file, object) = match kind {
            Kind::Ingress => {
                self.routes[host] = self.another_service(host, picks);
                (ingress_file(host), ingress(host, self.routes[host], self.services))
            }
            Kind::EndpointSlice => {
                let service = self.routes[host];
                self.chosen[service] = 1 - self.chosen[service];
                (slice_file(service), self.slice(service))
            }
        };
        let change = if self.cluster.is_some() {
            Change::Merge(object)
        } else {
            let staged = self.staged().join(&file);
            write(&staged, &object)?;
            Change::Rename { staged, path: self.folder().join(file) }
        };
        Ok(Edit { change, host: host_name(host), expected: self.expected(host) })
    }

    fn pick(&mut self, kind: Kind, picks: Picks) -> usize {
        loop {
            let host = self.random.below(self.routes.len());
            let churns = host < self.routes.len() / 10;
            let service_churns = self.routes[host] == 0;
            let fits = match (picks, kind) {
                (Picks::All, _) => true,
                (Picks::Still, _) => !churns && !service_churns,
                (Picks::Churning, Kind::Ingress) => churns,
                (Picks::Churning, Kind::EndpointSlice) => service_churns,
            };
            if fits {
                return host;
            }
        }
    }

    fn another_service(&mut self, host: usize, picks: Picks) -> usize {
        loop {
            // Never by a multiple of the number of backends, so the answer differs.
            let step = 1 + self.random.below(BACKENDS - 1);
            let service = (self.routes[host] + step) % self.services;
            if picks != Picks::Still || service != 0 {
                return service;
            }
        }
    }

    /// Makes it so. The clock runs from just before a rename, and from the answer of an API server.
    pub(crate) fn publish(&self, edit: &Edit) -> anyhow::Result<Instant> {
        match (&edit.change, &self.cluster) {
            (Change::Merge(object), Some(cluster)) => cluster.merge(object),
            (Change::Rename { staged, path }, _) => {
                let begun = Instant::now();
                std::fs::rename(staged, path)?;
                Ok(begun)
            }
            (Change::Merge(_), None) => anyhow::bail!("there is no API server"),
        }
    }

    fn slice(&self, service: usize) -> Value {
        let port = self.ports[service % BACKENDS][self.chosen[service]];
        endpoint_slice(service, self.address, port)
    }
}

fn service_file(service: usize) -> String {
    format!("service-{service:05}.json")
}

fn ingress_file(host: usize) -> String {
    format!("ingress-{host:05}.json")
}

fn slice_file(service: usize) -> String {
    format!("slice-{service:05}.json")
}

fn write(path: &Path, content: &Value) -> anyhow::Result<()> {
    Ok(std::fs::write(path, content.to_string())?)
}
