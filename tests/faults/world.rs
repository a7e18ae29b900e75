//! An API server, a proxy before it, a control plane behind that, and an Envoy.

use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::process::Program;
use crate::objects::{apply, namespace};
use crate::programs::{Edge, Replica, start_envoy};
use crate::proxy::Proxy;

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) proxy: Proxy,
    pub(crate) edge: Edge,
    pub(crate) replica: Replica,
    pub(crate) envoy: Option<Program>,
}

impl World {
    /// Starts all of it, with these objects from the start.
    pub(crate) fn start(objects: &[Value]) -> Self {
        let cluster = Cluster::start();
        let proxy = Proxy::to(cluster.port());
        let edge = Edge::new();
        apply(&cluster, &[namespace()]);
        apply(&cluster, objects);
        let mut replica = Replica::start(&cluster, "one", proxy.port, edge, &[]);
        replica.until_ready("sources");
        let envoy = Some(start_envoy(&cluster, "envoy", replica.xds));
        Self { cluster, proxy, edge, replica, envoy }
    }

    /// The host answers so now.
    pub(crate) fn serves(&self, host: &str, answer: &str) {
        assert_eq!(self.edge.answer(host), answer, "{host}");
    }
}
