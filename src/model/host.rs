//! One host and all that is routed on it.

use std::sync::Arc;

use serde::Serialize;

use super::limit::Limit;
use super::{Backend, Route, SecretRef};
use crate::features::effects::{Answer, Listeners};
use crate::values::{Age, HostName, Origin, Setting};

/// One scope: its routes in the order in which they are tried, and what they refer to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Host {
    /// The scope.
    pub name: HostName,
    /// The age of the oldest object that names it.
    #[serde(skip)]
    pub age: Age,
    /// Routes in order; the first that matches serves.
    pub routes: Vec<Route>,
    /// What routes refer to by index, each once.
    pub backends: Vec<Arc<Backend>>,
    /// The certificate of the host; none means the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Setting<SecretRef>>,
    /// Limits that routes refer to by id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
    /// Whether responses over https carry Strict-Transport-Security.
    pub strict_transport_security: bool,
}

impl Host {
    /// Whether the http and the https listener see different routes.
    pub fn listeners_differ(&self) -> bool {
        self.strict_transport_security
            || self.routes.iter().any(|route| {
                route.listeners != Listeners::All
                    || route.effects.guards.iter().any(|guard| guard.listeners != Listeners::All)
            })
    }

    /// Whether some route answers by this status itself. For tests and reports.
    pub fn answers(&self, status: u16) -> bool {
        let direct = |answer: &Answer| matches!(answer, Answer::Direct { status: own, .. } if *own == status);
        self.routes.iter().any(|route| match &route.action {
            super::Action::Answer(answer) => direct(answer),
            super::Action::Forward(_) => false,
        })
    }

    /// The objects that this host is made of.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.routes.iter().map(|route| &route.origin)
    }
}
