//! What goes next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use super::Session;
use super::channel::{ASKED, Due, Entry, Flight, Rejection, Retry, Wait};
use crate::xds::message::{Protocol, Response};
use crate::xds::snapshot::Resources;
use crate::xds::{Resource, TypeUrl};

/// What is to be done about a name.
enum Verdict {
    Send(Option<Arc<Resource>>),
    Wait(Arc<str>),
    Defer,
    Nothing,
}

impl Session {
    /// The responses that can go now: one at most of each type without a response in flight.
    pub(super) fn flush(&mut self, now: Instant) -> Vec<Response> {
        if self.linger.end_all(now) {
            self.look_at_removals_again(TypeUrl::Cluster, now);
        }
        while let Some(cluster) = self.linger.end(now) {
            self.look_at_removal_again(TypeUrl::Cluster, &cluster, now);
        }
        TypeUrl::ALL.into_iter().filter_map(|type_url| self.flush_type(type_url, now)).collect()
    }

    fn flush_type(&mut self, type_url: TypeUrl, now: Instant) -> Option<Response> {
        if self.channel(type_url).flight.is_some() {
            return None;
        }
        let mut entries = Vec::new();
        while entries.is_empty() {
            let Some(names) = self.next_names(type_url) else { break };
            for (name, due) in names {
                self.look_at(type_url, name, due, now, &mut entries);
            }
        }
        let channel = self.channel_mut(type_url);
        if entries.is_empty() && !(channel.owed && channel.waiting.is_empty()) {
            return None;
        }
        channel.owed = false;
        Some(self.take_off(type_url, entries))
    }

    /// What to look at next: parts of rejected responses take turns with what is pending, so that neither starves.
    fn next_names(&mut self, type_url: TypeUrl) -> Option<BTreeMap<Arc<str>, Due>> {
        let channel = self.channel_mut(type_url);
        let turn = channel.pending.is_empty() || !channel.was_suspect;
        let part = if turn { channel.suspects.pop_front() } else { None };
        channel.was_suspect = part.is_some();
        if let Some(part) = part {
            // Together with whatever else is known of these names, lest they are looked at twice.
            let whole = |(name, due): (Arc<str>, Due)| {
                self.pend(type_url, &name, due);
                let due = self.channel_mut(type_url).pending.remove(&name)?;
                Some((name, due))
            };
            return Some(part.names.into_iter().filter_map(whole).collect());
        }
        (!channel.pending.is_empty()).then(|| channel.pending.take())
    }

    fn look_at(
        &mut self,
        type_url: TypeUrl,
        name: Arc<str>,
        due: Due,
        now: Instant,
        entries: &mut Vec<Entry>,
    ) {
        match self.decide(type_url, &name, due, now) {
            Verdict::Send(resource) => entries.push(Entry { name, resource, due }),
            Verdict::Wait(cluster) => {
                let wait = Wait { due, cluster, deadline: due.at + self.settings.cluster_wait };
                self.order.wait(type_url, &name, &wait);
                self.channel_mut(type_url).waiting.insert(name, wait);
            }
            Verdict::Defer => {
                let knows_users = self.knows_users(type_url);
                let channel = self.channel_mut(type_url);
                channel.awaits_users |= !knows_users;
                channel.deferred.insert(name);
            }
            Verdict::Nothing => {}
        }
    }

    fn decide(&mut self, type_url: TypeUrl, name: &Arc<str>, due: Due, now: Instant) -> Verdict {
        if !self.channel(type_url).subscription.covers(name) {
            return Verdict::Nothing;
        }
        let target = self.target(type_url, name, now);
        let rejection = self.channel(type_url).rejected.get(name).copied();
        let is_same =
            |rejection: Rejection| target.as_ref().is_some_and(|r| r.version() == rejection.version);
        if rejection.is_some_and(|rejection| !is_same(rejection)) {
            self.settle(type_url, name);
        }
        let is_rejected =
            rejection.is_some_and(|rejection| is_same(rejection) && rejection.retry != Retry::Now);
        let channel = self.channel(type_url);
        let held = channel.held.get(name);
        let must = due.force || channel.doubtful.contains_key(name);
        let is_foreign = channel.foreign.contains(name);
        match if is_rejected { self.instead(type_url, name) } else { target } {
            Some(resource) => {
                let is_held = held.is_some_and(|held| held.version() == resource.version());
                if is_held && !must {
                    return Verdict::Nothing;
                }
                let may_wait = !is_held && now < due.at + self.settings.cluster_wait;
                let missing = if may_wait { self.missing_cluster(&resource) } else { None };
                missing.map_or(Verdict::Send(Some(resource)), Verdict::Wait)
            }
            None if is_rejected && is_foreign => Verdict::Nothing,
            None if held.is_none() && !is_foreign && !must => Verdict::Nothing,
            // There are no words for it: the client keeps the resource until it wants it no longer.
            None if self.protocol == Protocol::Sotw && !type_url.has_wildcard() => Verdict::Nothing,
            None if self.must_outlive_others(type_url, name) => match held {
                Some(held) if due.force => Verdict::Send(Some(held.clone())),
                None if due.force && !channel.in_doubt(name) => Verdict::Send(None),
                _ => Verdict::Defer,
            },
            None => Verdict::Send(None),
        }
    }

    /// What there is in place of a rejected resource: what the client accepted last, else a stand-in.
    fn instead(&self, type_url: TypeUrl, name: &str) -> Option<Arc<Resource>> {
        let channel = self.channel(type_url);
        if let Some(held) = channel.held.get(name) {
            return Some(held.clone());
        }
        // It holds a version of an earlier stream, which it did not reject.
        if channel.foreign.contains(name) {
            return None;
        }
        (self.settings.stand_in)(type_url, name).map(Arc::new)
    }

    /// The first cluster that a resource refers to and that the client wants but has not accepted yet. One that it
    /// rejected is nothing to wait for.
    fn missing_cluster(&self, resource: &Resource) -> Option<Arc<str>> {
        let clusters = self.channel(TypeUrl::Cluster);
        let is_leaving = |cluster: &Arc<str>| {
            clusters.flight.as_ref().is_some_and(|flight| flight.removed.contains(cluster))
                || clusters.doubtful.contains_key(cluster)
        };
        let is_rejected = |cluster: &Arc<str>| {
            let offered = self.snapshot.get(TypeUrl::Cluster, cluster);
            clusters.rejected.get(cluster).is_some_and(|rejection| {
                offered.is_some_and(|offered| offered.version() == rejection.version)
            })
        };
        let is_missing = |cluster: &&Arc<str>| {
            clusters.subscription.covers(cluster)
                && (!clusters.held.contains_key(*cluster) || is_leaving(cluster))
                && !is_rejected(cluster)
        };
        if resource.type_url().requires() != TypeUrl::Cluster {
            return None;
        }
        resource.requires().iter().find(is_missing).cloned()
    }

    /// Whether something that the client holds still needs what is gone.
    fn must_outlive_others(&self, type_url: TypeUrl, name: &Arc<str>) -> bool {
        let clusters = self.channel(TypeUrl::Cluster);
        match type_url {
            TypeUrl::Cluster => self.may_be_used(type_url, name),
            // One that it never took is of no use to a scope; the client waits for the word that there is none.
            TypeUrl::RouteConfiguration => {
                let channel = self.channel(type_url);
                (channel.has(name) || channel.in_doubt(name)) && self.may_be_used(type_url, name)
            }
            // A cluster without any endpoints yet cannot get ready before it is told that there are none.
            TypeUrl::ClusterLoadAssignment => {
                self.channel(type_url).has(name)
                    && clusters.has(name)
                    && self.snapshot.get(TypeUrl::Cluster, name).is_none()
            }
            _ => false,
        }
    }

    /// Whether something that the client holds, or may hold since an earlier stream, refers to a resource, or did until
    /// a while ago. What it may hold is one of its routes, which came after their clusters, or a scope, which came
    /// before its routes.
    fn may_be_used(&self, type_url: TypeUrl, name: &str) -> bool {
        let may_be_known = || type_url != TypeUrl::Cluster || self.channel(type_url).earlier.contains(name);
        let lingers = || type_url == TypeUrl::Cluster && self.linger.contains(name);
        self.order.is_used(type_url, name) || lingers() || (!self.knows_users(type_url) && may_be_known())
    }

    fn take_off(&mut self, type_url: TypeUrl, entries: Vec<Entry>) -> Response {
        for resource in entries.iter().filter_map(|entry| entry.resource.as_deref()) {
            self.order.add(resource);
        }
        self.responses += 1;
        let nonce = self.responses;
        let response = match self.protocol {
            Protocol::Delta => self.delta_response(type_url, &entries),
            Protocol::Sotw => self.sotw_response(type_url, &entries),
        };
        let since = entries.iter().map(|entry| entry.due.since).min().unwrap_or(ASKED);
        let gone = entries.iter().filter(|entry| entry.resource.is_none());
        let removed = gone.map(|entry| entry.name.clone()).collect();
        let channel = self.channel_mut(type_url);
        channel.flight = Some(Flight { nonce, entries, removed, since });
        response
    }

    fn delta_response(&self, type_url: TypeUrl, entries: &[Entry]) -> Response {
        let resource = |entry: &Entry| Some((entry.name.clone(), entry.resource.clone()?));
        let removed = entries.iter().filter(|entry| entry.resource.is_none());
        Response {
            type_url,
            nonce: self.responses.to_string(),
            version: self.snapshot.sequence().to_string(),
            resources: entries.iter().filter_map(resource).collect(),
            removed: removed.map(|entry| entry.name.clone()).collect(),
        }
    }

    fn sotw_response(&self, type_url: TypeUrl, entries: &[Entry]) -> Response {
        let mut set = Resources::new();
        if type_url.has_wildcard() {
            set = self.channel(type_url).held.clone();
        }
        for entry in entries {
            match &entry.resource {
                Some(resource) => set.insert(entry.name.clone(), resource.clone()),
                None => set.remove(&entry.name),
            };
        }
        Response {
            type_url,
            nonce: self.responses.to_string(),
            version: set_version(set.values()),
            resources: set.iter().map(|(name, resource)| (name.clone(), resource.clone())).collect(),
            removed: Vec::new(),
        }
    }
}

/// The version of a set of resources: a stable hash of their names and versions, in the order of names.
fn set_version<'r>(resources: impl Iterator<Item = &'r Arc<Resource>>) -> String {
    let mut hash = Xxh3::new();
    for resource in resources {
        hash.update(&(resource.name().len() as u64).to_le_bytes());
        hash.update(resource.name().as_bytes());
        hash.update(&resource.version().0.to_le_bytes());
    }
    format!("{:016x}", hash.digest())
}
