//! The Lease in Kubernetes: reads and writes it as `lease` says.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};

use super::lease::Election;
use super::writer::MANAGER;

/// The Lease's name, in the namespace of the Pod, else in that of the kubeconfig.
const NAME: &str = "chancery";
/// How long one look and write may take.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// Stands for election.
pub(super) struct Elector {
    leases: Api<Lease>,
    election: Election,
    /// The Lease as the server holds it.
    held: Option<Lease>,
}

/// How this replica is told from others: by its Pod's name, else by its machine's and a random number.
pub(super) fn identity() -> String {
    std::env::var("POD_NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}-{:016x}", machine.trim(), RandomState::new().hash_one(0))
    })
}

impl Elector {
    pub(super) fn new(client: Client, identity: String) -> Self {
        Self { leases: Api::default_namespaced(client), election: Election::new(identity), held: None }
    }

    /// Says when this replica begins or ceases to lead. Does not end.
    pub(super) async fn run(&mut self, leading: &watch::Sender<bool>) {
        let mut quiet = false;
        loop {
            // A leader ceases to lead in time, whatever hangs.
            let patience = Instant::now() + TURN_WITHIN;
            let limit = self.election.leads_until().map_or(patience, |end| end.min(patience));
            let trouble = match timeout_at(limit.into(), self.turn()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            match &trouble {
                Some(error) if !quiet => tracing::warn!("Lease {NAME}: {error}"),
                Some(error) => tracing::debug!("Lease {NAME}: {error}"),
                None => {}
            }
            quiet = trouble.is_some();
            let now = Instant::now();
            let leads = self.election.leads(now);
            leading.send_if_modified(|leading| std::mem::replace(leading, leads) != leads);
            sleep(self.election.next(now)).await;
        }
    }

    /// Looks once, and takes or renews the Lease if that is due.
    async fn turn(&mut self) -> kube::Result<()> {
        let now = Instant::now();
        self.held = self.leases.get_opt(NAME).await?;
        let seen = self.held.as_ref().and_then(|lease| lease.spec.as_ref());
        match self.election.read(seen, now, super::now()) {
            Some(lease) => self.write(lease).await,
            None => Ok(()),
        }
    }

    /// Another candidate that wrote first is no trouble: the next turn sees it.
    async fn write(&mut self, spec: LeaseSpec) -> kube::Result<()> {
        let now = Instant::now();
        let mut lease = self.held.clone().unwrap_or_default();
        lease.metadata.name = Some(NAME.into());
        lease.spec = Some(spec);
        // The resource version that was read makes sure that nothing happened in between.
        let written = match &self.held {
            Some(_) => self.leases.replace(NAME, &parameters(), &lease).await,
            None => self.leases.create(&parameters(), &lease).await,
        };
        match written {
            Ok(mut written) => {
                self.election.written(written.spec.take().unwrap_or_default(), now);
                self.held = Some(written);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease up, if it is held.
    pub(super) async fn release(&mut self) {
        let (Some(spec), Some(mut held)) = (self.election.release(super::now()), self.held.take()) else {
            return;
        };
        held.spec = Some(spec);
        match timeout(TURN_WITHIN / 2, self.leases.replace(NAME, &parameters(), &held)).await {
            Ok(Ok(_)) => tracing::info!("gave Lease {NAME} up"),
            Ok(Err(error)) => tracing::warn!("cannot give Lease {NAME} up: {error}"),
            Err(_) => tracing::warn!("cannot give Lease {NAME} up in time"),
        }
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() }
}
