//! What a host collects while it is resolved.

use std::collections::HashMap;
use std::sync::Arc;

use super::Resolved;
use crate::model::limit::Limit;
use crate::model::{Backend, SecretRef};
use crate::settings::Settings;
use crate::store::View;
use crate::values::certificate::Checked;
use crate::values::{Findings, HostName, Origin, Setting};

/// The host's TLS: what gave it, and the Secret, unless that is missing or broken and the default certificate serves.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) origin: Origin,
    pub(crate) secret: Option<(Setting<SecretRef>, Arc<Checked>)>,
}

#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) view: &'a View<'a>,
    pub(crate) settings: &'a Settings,
    pub(crate) host: &'a HostName,
    pub(crate) backends: Backends,
    pub(crate) limits: Vec<Limit>,
    pub(crate) findings: Findings,
    pub(crate) tls: Option<Tls>,
    pub(crate) strict_transport_security: bool,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(view: &'a View<'a>, settings: &'a Settings, host: &'a HostName) -> Self {
        Self {
            view,
            settings,
            host,
            backends: Backends::default(),
            limits: Vec::new(),
            findings: Findings::default(),
            tls: None,
            strict_transport_security: false,
        }
    }

    /// A host that nothing of ours names, with what was found on the way.
    pub(crate) fn nothing(self) -> Resolved {
        Resolved { host: None, certificate: None, findings: self.findings }
    }

    /// Adds a limit that routes will refer to, once.
    pub(crate) fn limit(&mut self, limit: Limit) {
        if self.limits.iter().all(|other| other.id != limit.id) {
            self.limits.push(limit);
        }
    }
}

/// Backends, each once.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    list: Vec<Arc<Backend>>,
    by_name: HashMap<Arc<str>, usize>,
}

impl Backends {
    /// The index of a backend, which is added if it is new.
    pub(crate) fn index(&mut self, backend: Backend) -> usize {
        *self.by_name.entry(backend.name.clone()).or_insert_with(|| {
            self.list.push(Arc::new(backend));
            self.list.len() - 1
        })
    }

    pub(crate) fn get(&self, index: usize) -> &Backend {
        &self.list[index]
    }

    pub(crate) fn into_vec(self) -> Vec<Arc<Backend>> {
        self.list
    }
}
