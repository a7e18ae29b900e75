//! What the client accepts and rejects.

use std::sync::Arc;
use std::time::Instant;

use super::channel::{Due, Entry, Flight, Part, Rejection, Retry};
use super::{Event, Session};
use crate::xds::{Resource, TypeUrl, Version};

impl Session {
    /// Takes the client's answer to the response in flight. One to another response is of no account.
    pub(super) fn on_answer(&mut self, type_url: TypeUrl, nonce: &str, error: Option<String>, now: Instant) {
        let flight = self.channel_mut(type_url).flight.take_if(|flight| nonce.parse() == Ok(flight.nonce));
        let Some(flight) = flight else { return };
        match error {
            None => {
                self.events.push(Event::Acked { type_url });
                self.on_ack(type_url, flight, now);
            }
            Some(message) => {
                self.events.push(Event::Nacked { type_url, message: message.clone() });
                self.on_nack(type_url, flight, &message, now);
            }
        }
    }

    fn on_ack(&mut self, type_url: TypeUrl, flight: Flight, now: Instant) {
        // A name that the client gave up and took again meanwhile may have changed unseen.
        let is_old = |entry: &&Entry| {
            let target = self
                .snapshot
                .find(type_url, &entry.name, self.settings.default_secret)
                .map(|(target, _)| target.version());
            target != entry.resource.as_ref().map(|resource| resource.version())
        };
        let old: Vec<_> = flight.entries.iter().filter(is_old).map(|entry| entry.name.clone()).collect();
        for name in old {
            self.look_again(type_url, &name, now);
        }
        // Then the snapshot's own map is what the client holds, and there is no need to write down each name.
        let level = self.channel(type_url).is_level();
        for entry in flight.entries {
            self.accept(type_url, entry, level, now);
        }
        self.share(type_url);
    }

    /// The client holds what it was sent.
    fn accept(&mut self, type_url: TypeUrl, entry: Entry, level: bool, now: Instant) {
        let Entry { name, resource, .. } = entry;
        let channel = self.channel_mut(type_url);
        if !channel.subscription.covers(&name) {
            if let Some(resource) = resource {
                self.release(&resource, now);
            }
            return;
        }
        channel.foreign.remove(&name);
        let present = resource.is_some();
        if let Some(resource) = &resource {
            self.settle_accepted(type_url, &name, resource.version());
        }
        let channel = self.channel_mut(type_url);
        let before = match resource {
            Some(_) if level => channel.held.get(&name).cloned(),
            Some(resource) => channel.held.insert(name.clone(), resource),
            None => {
                channel.earlier.remove(&name);
                channel.held.remove(&name)
            }
        };
        if let Some(before) = before {
            self.release(&before, now);
        }
        self.release_doubtful(type_url, &name, now);
        if type_url == TypeUrl::Cluster {
            if present {
                for (type_url, waiter) in self.order.waiters(&name) {
                    self.look_again(type_url, &waiter, now);
                }
            } else {
                self.cluster_is_gone(&name, now);
            }
        }
    }

    /// The client holds a cluster no more: its endpoints may go too.
    pub(super) fn cluster_is_gone(&mut self, name: &Arc<str>, now: Instant) {
        self.look_at_removal_again(TypeUrl::ClusterLoadAssignment, name, now);
    }

    /// Lets a client that holds all there is share the snapshot's own map, so that it costs no memory of its own.
    pub(super) fn share(&mut self, type_url: TypeUrl) {
        let channel = &mut self.channels[type_url as usize];
        if channel.flight.is_none() && channel.is_level() && channel.foreign.is_empty() {
            channel.held = self.snapshot.of_type(type_url).clone();
        }
    }

    fn on_nack(&mut self, type_url: TypeUrl, flight: Flight, message: &str, now: Instant) {
        let mut entries = flight.entries;
        // Nobody has a reason to refuse that something is gone; believing otherwise would never end.
        if entries.len() == 1 || entries.iter().all(|entry| entry.resource.is_none()) {
            for entry in entries {
                match entry.resource {
                    Some(resource) => self.reject(type_url, entry.name, resource, entry.due, message, now),
                    None => self.accept(type_url, entry, false, now),
                }
            }
            return;
        }
        entries.retain(|entry| {
            let wanted = self.channel(type_url).subscription.covers(&entry.name);
            if let (false, Some(resource)) = (wanted, &entry.resource) {
                self.release(resource, now);
            }
            wanted
        });
        for part in split(&entries, message).into_iter().rev() {
            let due = |entry: &Entry| Due { force: false, ..entry.due };
            let names = part.into_iter().map(|entry| (entry.name.clone(), due(entry))).collect();
            self.channel_mut(type_url).suspects.push_front(Part::new(names));
        }
        // The client may have taken some of them, whatever its answer says of the whole. So each is sent again, unless
        // something newer was in between.
        let doubtful = &mut self.channel_mut(type_url).doubtful;
        for entry in entries {
            doubtful.entry(entry.name).or_default().extend(entry.resource);
        }
    }

    /// A resource was rejected alone: it goes back to what the client accepted last, else to a stand-in.
    fn reject(
        &mut self,
        type_url: TypeUrl,
        name: Arc<str>,
        resource: Arc<Resource>,
        due: Due,
        message: &str,
        now: Instant,
    ) {
        self.release(&resource, now);
        if !self.channel(type_url).subscription.covers(&name) {
            return;
        }
        self.rule_out(type_url, &name, resource.version(), now);
        let before = self.channel(type_url).rejected.get(&name).copied();
        if before.is_some_and(|before| before.version != resource.version()) {
            // Even the version it accepted before: there is nothing else to offer.
            self.release_doubtful(type_url, &name, now);
            return;
        }
        let retries = before.map_or(0, |before| before.retries + 1);
        let rejection =
            Rejection { version: resource.version(), retry: self.retry(type_url, retries, now), retries };
        let channel = self.channel_mut(type_url);
        channel.rejected.insert(name.clone(), rejection);
        if before.is_none() {
            self.events.push(Event::Rejected {
                type_url,
                name: name.clone(),
                version: resource.version(),
                message: message.to_owned(),
            });
        }
        self.pend(type_url, &name, Due { since: due.since, at: now, force: false });
        if type_url == TypeUrl::Cluster {
            for (type_url, waiter) in self.order.waiters(&name) {
                self.look_again(type_url, &waiter, now);
            }
        }
    }

    /// What is rejected alone was not taken from a larger response either.
    fn rule_out(&mut self, type_url: TypeUrl, name: &Arc<str>, version: Version, now: Instant) {
        let doubtful = self.channel_mut(type_url).doubtful.entry(name.clone()).or_default();
        let ruled_out: Vec<_> = doubtful.extract_if(.., |form| form.version() == version).collect();
        for resource in ruled_out {
            self.release(&resource, now);
        }
    }

    /// When a rejected resource is tried again, less and less often. Only listeners are: what they are rejected for may
    /// lie outside of what they say, such as an address that is in use.
    fn retry(&self, type_url: TypeUrl, retries: u32, now: Instant) -> Retry {
        if type_url != TypeUrl::Listener {
            return Retry::Never;
        }
        let wait = self.settings.retry_after.saturating_mul(2_u32.saturating_pow(retries));
        Retry::At(now + wait.min(self.settings.retry_at_least_every))
    }

    /// The client has accepted what it rejected before.
    fn settle_accepted(&mut self, type_url: TypeUrl, name: &Arc<str>, version: Version) {
        if self.channel(type_url).rejected.get(name).is_some_and(|rejection| rejection.version == version) {
            self.settle(type_url, name);
        }
    }

    /// A rejection is over: the resource changed, is accepted now, or is not asked for.
    pub(super) fn settle(&mut self, type_url: TypeUrl, name: &Arc<str>) {
        if self.channel_mut(type_url).rejected.remove(name).is_some() {
            self.events.push(Event::Settled { type_url, name: name.clone() });
        }
    }
}

/// Parts of a rejected response to be tried alone, each smaller than the whole. What the client's message names is
/// suspected first: Envoy names the clusters, listeners and scopes it refuses. Else halves. Removals go before all, as
/// they may make room.
fn split<'e>(entries: &'e [Entry], message: &str) -> Vec<Vec<&'e Entry>> {
    let (sets, removals): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.resource.is_some());
    let mut parts = Vec::new();
    if !removals.is_empty() {
        parts.push(removals);
        parts.push(sets);
    } else {
        let (named, others): (Vec<_>, Vec<_>) = sets.iter().partition(|entry| names(message, &entry.name));
        if named.is_empty() || others.is_empty() {
            let (front, back) = sets.split_at(sets.len() / 2);
            parts.extend([front.to_vec(), back.to_vec()]);
        } else {
            parts.push(others);
            parts.extend(named.into_iter().map(|entry| vec![entry]));
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// Whether a message names a resource: the name stands in it as a word of its own.
fn names(message: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    !name.is_empty()
        && message.match_indices(name).any(|(at, _)| {
            let (before, after) =
                (message[..at].chars().next_back(), message[at + name.len()..].chars().next());
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_name_is_a_word() {
        let message = "Error adding/updating cluster(s) b: cannot create, c-d: likewise";
        for (name, expected) in
            [("b", true), ("c-d", true), ("c", false), ("d", false), ("Err", false), ("", false)]
        {
            assert_eq!(names(message, name), expected, "{name}");
        }
    }
}
