//! The manifests as files in a folder, and edits of them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::backends::{ADDRESSES, BACKENDS, body};
use super::manifests::{Random, endpoint_slice, host_name, ingress, service, service_of};

/// A folder of manifests, removed when this is dropped.
pub(crate) struct Workload {
    /// Holds the folder that is followed, and beside it the one where files are written.
    home: tempfile::TempDir,
    services: usize,
    ports: Vec<u16>,
    /// By host: the Service of its first path.
    routes: Vec<usize>,
    /// By Service: which of its addresses it has.
    addresses: Vec<usize>,
    random: Random,
}

/// What is edited.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Ingress,
    EndpointSlice,
}

/// An edit that is written but for its rename.
pub(crate) struct Edit {
    staged: PathBuf,
    path: PathBuf,
    /// Where it shows.
    pub(crate) host: String,
    /// What is answered there after it.
    pub(crate) expected: String,
}

impl Edit {
    pub(crate) fn publish(&self) -> std::io::Result<()> {
        std::fs::rename(&self.staged, &self.path)
    }
}

impl Workload {
    pub(crate) fn write(hosts: usize, services: usize, ports: &[u16]) -> anyhow::Result<Self> {
        let this = Self {
            home: tempfile::tempdir()?,
            services,
            ports: ports.to_vec(),
            routes: (0..hosts).map(|host| service_of(host, 0, services)).collect(),
            addresses: vec![0; services],
            random: Random::new(),
        };
        std::fs::create_dir(this.folder())?;
        std::fs::create_dir(this.staged())?;
        for number in 0..services {
            write(&this.folder().join(format!("service-{number:05}.json")), &service(number))?;
            write(&this.folder().join(slice_file(number)), &this.slice(number))?;
        }
        for host in 0..hosts {
            write(&this.folder().join(ingress_file(host)), &ingress(host, this.routes[host], services))?;
        }
        Ok(this)
    }

    /// What is followed.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().join("manifests")
    }

    /// For files of whoever measures.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    fn staged(&self) -> PathBuf {
        self.home.path().join("staged")
    }

    pub(crate) fn last_host(&self) -> String {
        host_name(self.routes.len() - 1)
    }

    /// What a host's first path is answered with.
    fn expected(&self, host: usize) -> String {
        let service = self.routes[host];
        body(service % BACKENDS, self.addresses[service])
    }

    /// Every host, and what its first path is answered with.
    pub(crate) fn expectations(&self) -> impl Iterator<Item = (String, String)> + '_ {
        (0..self.routes.len()).map(|host| (host_name(host), self.expected(host)))
    }

    /// The next edit: of a random host, or of the Service behind its first path.
    pub(crate) fn edit(&mut self, kind: Kind) -> anyhow::Result<Edit> {
        let host = self.random.below(self.routes.len());
        let (file, content) = match kind {
            Kind::Ingress => {
                // Never by a multiple of the number of backends, so the answer differs.
                let step = 1 + self.random.below(BACKENDS - 1);
                self.routes[host] = (self.routes[host] + step) % self.services;
                (ingress_file(host), ingress(host, self.routes[host], self.services))
            }
            Kind::EndpointSlice => {
                let service = self.routes[host];
                self.addresses[service] = 1 - self.addresses[service];
                (slice_file(service), self.slice(service))
            }
        };
        let staged = self.staged().join(&file);
        write(&staged, &content)?;
        Ok(Edit {
            staged,
            path: self.folder().join(file),
            host: host_name(host),
            expected: self.expected(host),
        })
    }

    fn slice(&self, service: usize) -> Value {
        endpoint_slice(service, ADDRESSES[self.addresses[service]], self.ports[service % BACKENDS])
    }
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
