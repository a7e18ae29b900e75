//! What the client asks.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::channel::{ASKED, Due};
use crate::xds::message::{Ask, Request, Response};
use crate::xds::{TypeUrl, Version};

/// The name that means all of them, in types that have a wildcard.
const WILDCARD: &str = "*";

impl Session {
    /// Takes a request: what it says about the response in flight, then what it asks. What it asks counts even if the
    /// client had not read the latest response when it wrote this: a name that it gave up and took again must be seen
    /// as such, or it would not be answered. No second response goes before the first is answered anyway.
    pub fn on_request(&mut self, request: Request, now: Instant) -> Vec<Response> {
        let Request { type_url, nonce, error, ask } = request;
        if !nonce.is_empty() {
            self.on_answer(type_url, &nonce, error, now);
        }
        match ask {
            Ask::Delta { subscribe, unsubscribe, initial_versions } => {
                self.on_delta(type_url, subscribe, unsubscribe, initial_versions, now);
            }
            Ask::Sotw { names } => self.on_names(type_url, names, now),
        }
        if type_url.requires().required_by() == Some(type_url) {
            self.recheck_removals(now);
        }
        let responses = self.flush(now);
        self.share(type_url);
        responses
    }

    fn on_delta(
        &mut self,
        type_url: TypeUrl,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
        initial_versions: HashMap<String, String>,
        now: Instant,
    ) {
        let first = !self.channel(type_url).subscription.asked;
        self.channel_mut(type_url).subscription.asked = true;
        for name in unsubscribe {
            if name == WILDCARD && type_url.has_wildcard() {
                self.unsubscribe_wildcard(type_url, now);
            } else {
                self.unsubscribe(type_url, &name, now);
            }
        }
        let mut wildcard = first && subscribe.is_empty() && type_url.has_wildcard();
        for name in subscribe {
            if name == WILDCARD && type_url.has_wildcard() {
                wildcard = true;
            } else {
                self.subscribe(type_url, &name, now);
            }
        }
        if wildcard {
            // A client that names versions has had its first answer on an earlier stream.
            self.channel_mut(type_url).owed |= initial_versions.is_empty();
            self.subscribe_wildcard(type_url, now);
        }
        if first {
            self.resumed |= type_url.required_by().is_some() && !initial_versions.is_empty();
            for (name, version) in initial_versions {
                self.claim(type_url, &name, &version, now);
            }
        }
    }

    /// A list of names replaces the one before. What the client says that it holds from an earlier stream is not trusted
    /// here: it names but the version of the last set that it accepted, and may have taken parts of one it rejected.
    fn on_names(&mut self, type_url: TypeUrl, names: Vec<String>, now: Instant) {
        let subscription = &mut self.channel_mut(type_url).subscription;
        let first = !subscription.asked;
        subscription.asked = true;
        subscription.named |= !names.is_empty();
        let (had_wildcard, named) = (subscription.wildcard, subscription.named);
        let has_wildcard = type_url.has_wildcard();
        let wildcard = has_wildcard && (!named || names.iter().any(|name| name == WILDCARD));

        let wanted: HashSet<&str> =
            names.iter().map(String::as_str).filter(|name| !has_wildcard || *name != WILDCARD).collect();
        let dropped: Vec<Arc<str>> = self
            .channel(type_url)
            .subscription
            .names()
            .iter()
            .filter(|name| !wanted.contains(&***name))
            .cloned()
            .collect();
        for name in dropped {
            self.unsubscribe(type_url, &name, now);
        }
        for name in wanted {
            if !self.channel(type_url).subscription.contains(name) {
                self.subscribe(type_url, name, now);
            }
        }
        if wildcard && !had_wildcard {
            self.subscribe_wildcard(type_url, now);
        } else if had_wildcard && !wildcard {
            self.unsubscribe_wildcard(type_url, now);
        }
        self.channel_mut(type_url).owed |= first && has_wildcard;
    }

    fn subscribe(&mut self, type_url: TypeUrl, name: &str, now: Instant) {
        let name = self.intern(type_url, name);
        self.channel_mut(type_url).subscription.insert(name.clone());
        self.pend(type_url, &name, Due { since: ASKED, at: now, force: true });
    }

    /// The snapshot's own copy of a name, if it has one.
    fn intern(&self, type_url: TypeUrl, name: &str) -> Arc<str> {
        self.snapshot.get(type_url, name).map_or_else(|| Arc::from(name), |resource| resource.name().clone())
    }

    fn subscribe_wildcard(&mut self, type_url: TypeUrl, now: Instant) {
        let subscription = &mut self.channel_mut(type_url).subscription;
        let force = std::mem::replace(&mut subscription.wildcard, true);
        let due = Due { since: ASKED, at: now, force };
        let snapshot = self.snapshot.clone();
        for resource in snapshot.iter(type_url) {
            self.pend(type_url, resource.name(), due);
        }
    }

    fn unsubscribe(&mut self, type_url: TypeUrl, name: &str, now: Instant) {
        let channel = self.channel_mut(type_url);
        if !channel.subscription.contains(name) {
            return;
        }
        channel.subscription.remove(name);
        if channel.subscription.wildcard {
            // The client dropped the resource, not knowing that the wildcard covers it.
            let name = self.intern(type_url, name);
            self.pend(type_url, &name, Due { since: ASKED, at: now, force: true });
        } else {
            self.forget(type_url, &Arc::from(name), now);
        }
    }

    fn unsubscribe_wildcard(&mut self, type_url: TypeUrl, now: Instant) {
        let channel = self.channel_mut(type_url);
        channel.subscription.wildcard = false;
        channel.owed = false;
        let mut names: Vec<Arc<str>> = channel.held.keys().cloned().collect();
        names.extend(channel.foreign.iter().cloned());
        names.extend(channel.pending.names().cloned());
        names.extend(channel.waiting.keys().cloned());
        names.extend(channel.rejected.keys().cloned());
        names.extend(channel.doubtful.keys().cloned());
        for name in names {
            if !self.channel(type_url).subscription.contains(&name) {
                self.forget(type_url, &name, now);
            }
        }
    }

    /// Drops all that is known of a name: the client has dropped it too.
    fn forget(&mut self, type_url: TypeUrl, name: &Arc<str>, now: Instant) {
        let channel = &mut self.channels[type_url as usize];
        channel.pending.remove(name);
        channel.deferred.remove(name);
        channel.foreign.remove(name);
        channel.earlier.remove(name);
        if let Some(wait) = channel.waiting.remove(name) {
            self.order.stop_waiting(type_url, name, &wait);
        }
        let held = channel.held.remove(name);
        self.settle(type_url, name);
        self.release_doubtful(type_url, name, now);
        if let Some(held) = held {
            self.release(&held, now);
        }
        if type_url == TypeUrl::Cluster {
            self.cluster_is_gone(name, now);
            // Nobody waits for a cluster that the client does not want.
            for (type_url, waiter) in self.order.waiters(name) {
                self.look_again(type_url, &waiter, now);
            }
        }
    }

    /// Takes the client's word for what it holds from an earlier stream.
    fn claim(&mut self, type_url: TypeUrl, name: &str, version: &str, now: Instant) {
        if !self.channel(type_url).subscription.covers(name) {
            return;
        }
        let name = self.intern(type_url, name);
        let target = self.target(type_url, &name, now);
        // It subscribes to the name in the same request, which asks for no answer of its own then.
        self.channel_mut(type_url).pending.remove(&name);
        if type_url == TypeUrl::Cluster {
            self.channel_mut(type_url).earlier.insert(name.clone());
        }
        match target.filter(|target| Version::parse(version) == Some(target.version())) {
            Some(same) => {
                self.order.add(&same);
                self.channel_mut(type_url).held.insert(name, same);
            }
            None => {
                self.channel_mut(type_url).foreign.insert(name.clone());
                self.pend(type_url, &name, Due { since: ASKED, at: now, force: false });
            }
        }
    }
}
