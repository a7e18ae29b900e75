//! Metrics of what is at the moment, read from its owners.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::State;
use crate::exposition::{Labels, counters, gauges};
use crate::fleet::Totals;
use crate::ratelimit::counters::Counters as _;
use crate::ratelimit::envoyproxy::Rules;
use crate::ratelimit::metrics;
use crate::values::Finding;
use crate::xds::{Audience, TypeUrl};

/// What is at the moment.
pub(super) struct Now(pub(super) State);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(&mut encoder, "build_info", "The version that runs", [(version, 1)])?;
        self.snapshot(&mut encoder)?;
        self.findings(&mut encoder)?;
        self.fleet(&mut encoder)?;
        self.ratelimit(&mut encoder)?;
        self.certificate(&mut encoder)
    }
}

impl Now {
    fn snapshot(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let snapshot = self.0.snapshots.borrow().clone();
        let sequence = snapshot.as_ref().map_or(0, |snapshot| snapshot.sequence());
        let none: Labels<0> = [];
        gauges(
            encoder,
            "ready",
            "Whether there is a snapshot",
            [(none.clone(), u64::from(snapshot.is_some()))],
        )?;
        gauges(encoder, "snapshot_sequence", "Number of the latest snapshot", [(none.clone(), sequence)])?;
        let resources = TypeUrl::ALL.map(|type_url| {
            let count = snapshot.as_ref().map_or(0, |snapshot| snapshot.len(type_url));
            ([("type", type_url.to_string())], count as u64)
        });
        gauges(encoder, "resources", "Resources of the latest snapshot", resources)?;
        let hosts = self.0.published.borrow().hosts.len() as u64;
        gauges(encoder, "hosts", "Hosts that something is routed on", [(none, hosts)])
    }

    fn findings(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let findings = self.0.published.borrow().findings.clone();
        let mut counts: BTreeMap<Labels<2>, u64> = BTreeMap::new();
        for finding in findings.values().flat_map(|of_object| of_object.iter()) {
            let Finding { severity, reason, .. } = finding;
            let labels = [("severity", severity.to_string()), ("reason", (*reason).to_owned())];
            *counts.entry(labels).or_default() += 1;
        }
        gauges(encoder, "findings", "What there is to say about objects now", counts)
    }

    fn fleet(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let (nodes, services): (Vec<_>, Vec<_>) =
            self.0.fleet.nodes().into_iter().partition(|node| node.audience == Audience::Envoy);
        let sequence = self.0.snapshots.borrow().as_ref().map_or(0, |snapshot| snapshot.sequence());
        let behind = nodes.iter().filter(|node| node.progress.acked < sequence).count() as u64;
        let none: Labels<0> = [];
        gauges(encoder, "envoys", "Connected Envoys", [(none.clone(), nodes.len() as u64)])?;
        gauges(
            encoder,
            "envoys_behind",
            "Envoys that have not acknowledged the latest snapshot",
            [(none.clone(), behind)],
        )?;
        let services = services.len() as u64;
        gauges(encoder, "ratelimit_services", "Connected rate limit services", [(none, services)])?;
        let mut rejected = TypeUrl::ALL.map(|type_url| ([("type", type_url.to_string())], 0));
        for (type_url, _) in self.0.fleet.rejections().borrow().keys() {
            rejected[*type_url as usize].1 += 1;
        }
        gauges(encoder, "rejected_resources", "Resources that some Envoy rejects", rejected)?;
        let totals = self.0.fleet.totals();
        let by_type = |read: fn(&Totals) -> u64| {
            let one =
                |type_url: TypeUrl| ([("type", type_url.to_string())], read(&totals[type_url as usize]));
            TypeUrl::ALL.map(one)
        };
        counters(encoder, "xds_responses", "Responses sent", by_type(|total| total.responses))?;
        counters(encoder, "xds_resources", "Resources sent", by_type(|total| total.resources))?;
        counters(encoder, "xds_removed", "Removals sent", by_type(|total| total.removed))?;
        counters(encoder, "xds_bytes", "Bytes sent", by_type(|total| total.bytes))?;
        counters(encoder, "xds_acks", "Responses accepted", by_type(|total| total.acks))?;
        counters(encoder, "xds_nacks", "Responses rejected", by_type(|total| total.nacks))
    }

    fn ratelimit(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let Some(service) = &self.0.ratelimit else { return Ok(()) };
        let store = service.counters.state();
        metrics::encode(encoder, &service.decisions, &Rules::default(), store.as_ref())
    }

    fn certificate(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let Some(tls) = &self.0.tls else { return Ok(()) };
        let identity = tls.identity();
        let expires = identity.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let serial = [("serial", identity.serial.clone())];
        let help = "When the certificate that Envoys are shown expires, in seconds since 1970";
        gauges(encoder, "xds_certificate_expiry_timestamp_seconds", help, [(serial, expires)])?;
        let none: Labels<0> = [];
        let help =
            "Whether the files of mutual TLS hold what cannot be used, so that the one before is shown";
        gauges(encoder, "xds_certificate_refused", help, [(none, u64::from(tls.refused()))])
    }
}
