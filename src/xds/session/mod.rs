//! The protocol: one stream's state machine.
//!
//! A [`Session`] is told what the client said, which snapshot there is and what time it is; it answers with the
//! responses to send. It does no IO, starts no task and reads no clock, so that every rule can be tested as data.
//!
//! - `request`: what the client asks. A subscription is always answered, be it by "there is none"; only in a stream's
//!   first request of a type do the versions that the client names count as an answer.
//! - `answer`: what the client accepts and rejects. The resources of a rejected response are sent again in smaller and
//!   smaller parts, until the one that is rejected alone is found; that one goes back to what the client accepted last, else to a stand-in.
//! - `send`: what goes next. Each name that may need something is looked at once, when its type has no response in
//!   flight; so whatever happened to it in between is one update.
//! - `order`: make before break. A resource waits until the clusters it requires are acknowledged; a cluster is
//!   removed when nothing that the client holds requires it, and a route configuration when no scope names it.
//! - `linger`: how long a cluster stays after that, for requests on their way.
//!
//! The state-of-the-world variant is the same machine. What it sends differs in form only: of a type with wildcard the
//! whole set, held plus changed, and of the others no removals.

mod answer;
mod channel;
mod linger;
mod order;
mod request;
mod send;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::channel::{ASKED, Channel, Due, Retry};
use self::linger::Linger;
use self::order::Order;
use self::subscription::Admission;
use super::message::{Protocol, Response};
use super::snapshot::{Found, Resources};
use super::{Resource, Snapshot, TypeUrl, Version};

/// What can be set about sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a resource waits at most until the clusters it requires are acknowledged. Default: 10 s.
    pub cluster_wait: Duration,
    /// How long a cluster stays after the last resource that referred to it went. Envoy looks a request's cluster up when
    /// its filters have let the request in, which may take as long as a service that they ask, and breaks off what they
    /// ask a cluster that goes. Default: 60 s, nginx's `proxy_read_timeout`.
    pub cluster_linger: Duration,
    /// The name of the `Secret` for server names without one of their own. Default: there is none.
    pub default_secret: Option<&'static str>,
    /// How many names a stream may have served by the default `Secret`, which clients on the internet choose; one more
    /// takes the place of the oldest. Default: 1,000.
    pub default_secret_names: usize,
    /// The same for names that are served by the `Secret` of a wildcard, or by their own in another letter case. Apart from
    /// those, so that a flood of any names takes no room from subdomains. Default: 10,000.
    pub wildcard_secret_names: usize,
    /// Whether a snapshot declares a name, which no client can do. Such names are served in any number, and no flood of
    /// others drives them out. Default: none.
    pub declares: fn(&Snapshot, &str) -> bool,
    /// How long after its rejection a listener is sent again, since what it was rejected for may be over; twice as long
    /// after each further time. Default: 1 s.
    pub retry_after: Duration,
    /// The longest time between two such tries. Default: 1 min.
    pub retry_at_least_every: Duration,
    /// Makes what is sent under a name of which the client rejects what there is and has accepted nothing before. It must
    /// be something that no client rejects; without it the name is gone. Default: nothing.
    pub stand_in: fn(TypeUrl, &str) -> Option<Resource>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            cluster_wait: Duration::from_secs(10),
            cluster_linger: Duration::from_secs(60),
            default_secret: None,
            default_secret_names: 1_000,
            wildcard_secret_names: 10_000,
            declares: |_, _| false,
            retry_after: Duration::from_secs(1),
            retry_at_least_every: Duration::from_secs(60),
            stand_in: |_, _| None,
        }
    }
}

/// Something that others want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The client accepted a response.
    Acked {
        /// The response's type.
        type_url: TypeUrl,
    },
    /// The client rejected a response; which resource is to blame may not be known yet.
    Nacked {
        /// The response's type.
        type_url: TypeUrl,
        /// The client's words.
        message: String,
    },
    /// The client rejects a resource: it holds the version it accepted last, else a stand-in or none.
    Rejected {
        /// The resource's type.
        type_url: TypeUrl,
        /// The resource's name.
        name: Arc<str>,
        /// The version that is rejected.
        version: Version,
        /// The client's words.
        message: String,
    },
    /// A resource that was rejected has changed, is gone, is accepted after all, or is no longer asked for.
    Settled {
        /// The resource's type.
        type_url: TypeUrl,
        /// The resource's name.
        name: Arc<str>,
    },
}

/// How far a stream has come, in sequences of snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// The latest snapshot that it knows.
    pub seen: u64,
    /// All changes up to this one are sent.
    pub sent: u64,
    /// All changes up to this one are accepted, or rejected and so out of the way.
    pub acked: u64,
}

/// The state of one type, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Whether the client wants all resources.
    pub wildcard: bool,
    /// Names that the client subscribed to.
    pub names: usize,
    /// Resources that it accepted.
    pub held: usize,
    /// Names to be looked at when the response in flight is answered.
    pub pending: usize,
    /// Resources that wait for a cluster.
    pub waiting: usize,
    /// Removals that wait until nothing uses the resource.
    pub deferred: usize,
    /// Resources and removals in flight.
    pub in_flight: usize,
    /// Resources that are rejected.
    pub rejected: usize,
}

/// The protocol's state on one stream.
pub struct Session {
    protocol: Protocol,
    settings: Settings,
    snapshot: Arc<Snapshot>,
    channels: [Channel; TypeUrl::COUNT],
    order: Order,
    linger: Linger,
    /// The client holds clusters or route configurations of an earlier stream, so it may hold what refers to them too.
    resumed: bool,
    /// It may hold, or have held a moment ago, routes of an earlier stream of which nobody knows what they refer to.
    users_unknown: bool,
    /// Until when its first requests for what refers to these are awaited, before one of them goes.
    users_awaited: Option<Instant>,
    responses: u64,
    events: Vec<Event>,
}

impl Session {
    /// A stream that was opened just now.
    pub fn new(protocol: Protocol, settings: Settings, snapshot: Arc<Snapshot>, now: Instant) -> Self {
        let default_secret = settings.default_secret;
        let users_awaited = Some(now + settings.cluster_wait);
        Session {
            protocol,
            settings,
            snapshot,
            channels: TypeUrl::ALL.map(|type_url| Channel::new(type_url, default_secret)),
            order: Order::default(),
            linger: Linger::default(),
            resumed: false,
            users_unknown: true,
            users_awaited,
            responses: 0,
            events: Vec::new(),
        }
    }

    /// Moves on to a newer snapshot.
    pub fn on_snapshot(&mut self, snapshot: Arc<Snapshot>, now: Instant) -> Vec<Response> {
        let before = std::mem::replace(&mut self.snapshot, snapshot.clone());
        match snapshot.changes_since(before.sequence()) {
            Some(changes) => {
                for (since, type_url, name) in changes {
                    self.touch(type_url, name, Due { since, at: now, force: false });
                }
            }
            None => self.touch_all_that_differs(now),
        }
        self.flush(now)
    }

    /// Sends what has waited long enough.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Response> {
        for (type_url, name) in self.order.overdue(now) {
            self.look_again(type_url, &name, now);
        }
        if self.users_awaited.is_some_and(|at| at <= now) {
            self.users_awaited = None;
            self.recheck_removals(now);
        }
        self.retry_rejected(now);
        self.flush(now)
    }

    /// When [`on_deadline`](Self::on_deadline) is to be called, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waits = [self.order.next_deadline(), self.linger.next_deadline(), self.users_awaited];
        waits.into_iter().flatten().chain(self.next_retry()).min()
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// How far the client has come.
    pub fn progress(&self) -> Progress {
        let seen = self.snapshot.sequence();
        let unsent =
            self.channels.iter().map(Channel::unsent).min().unwrap_or(ASKED).min(self.order.oldest());
        let unanswered = self.channels.iter().map(Channel::unanswered).min().unwrap_or(ASKED);
        let before = |oldest: u64| if oldest == ASKED { seen } else { oldest.saturating_sub(1).min(seen) };
        Progress { seen, sent: before(unsent), acked: before(unsent.min(unanswered)) }
    }

    /// The state of a type, in numbers.
    pub fn counts(&self, type_url: TypeUrl) -> Counts {
        let channel = self.channel(type_url);
        Counts {
            wildcard: channel.subscription.wildcard,
            names: channel.subscription.names().len(),
            held: channel.held.len(),
            pending: channel.pending.len()
                + channel.suspects.iter().map(|part| part.names.len()).sum::<usize>(),
            waiting: channel.waiting.len(),
            deferred: channel.deferred.len(),
            in_flight: channel.flight.as_ref().map_or(0, |flight| flight.entries.len()),
            rejected: channel.rejected.len(),
        }
    }

    /// What the client accepted last, by the name that it asked. A clone is O(1).
    pub fn held(&self, type_url: TypeUrl) -> &Resources {
        &self.channel(type_url).held
    }

    /// When a rejected listener is tried again; there are few listeners.
    fn next_retry(&self) -> Option<Instant> {
        let rejected = self.channel(TypeUrl::Listener).rejected.values();
        rejected
            .filter_map(|rejection| if let Retry::At(at) = rejection.retry { Some(at) } else { None })
            .min()
    }

    fn retry_rejected(&mut self, now: Instant) {
        let rejected = &mut self.channel_mut(TypeUrl::Listener).rejected;
        let mut names = Vec::new();
        for (name, rejection) in rejected.iter_mut() {
            if matches!(rejection.retry, Retry::At(at) if at <= now) {
                rejection.retry = Retry::Now;
                names.push(name.clone());
            }
        }
        for name in names {
            self.look_again(TypeUrl::Listener, &name, now);
        }
    }

    fn channel(&self, type_url: TypeUrl) -> &Channel {
        &self.channels[type_url as usize]
    }

    fn channel_mut(&mut self, type_url: TypeUrl) -> &mut Channel {
        &mut self.channels[type_url as usize]
    }

    /// The resource that there is for a name, but for names of `Secret`s past the bounds of [`Settings`]: that there is
    /// none fails the handshake, and frees what the client keeps of a name that somebody made up.
    fn target(&mut self, type_url: TypeUrl, name: &Arc<str>, now: Instant) -> Option<Arc<Resource>> {
        let (resource, found) = match self.snapshot.find(type_url, name, self.settings.default_secret) {
            Some((resource, found)) => (Some(resource.clone()), Some(found)),
            None => (None, None),
        };
        let limit = match found {
            Some(Found::Default) => Some(self.settings.default_secret_names),
            Some(Found::OtherCase | Found::Wildcard) => Some(self.settings.wildcard_secret_names),
            None | Some(Found::Exact) => None,
        };
        let limit = limit.filter(|_| !(self.settings.declares)(&self.snapshot, name));
        match self.channel_mut(type_url).subscription.admit(name, found, limit) {
            Admission::Granted => resource,
            Admission::InPlaceOf(oldest) => {
                self.look_again(type_url, &oldest, now);
                resource
            }
            Admission::Refused => None,
        }
    }

    /// Notes that the snapshot's resource of this name changed.
    fn touch(&mut self, type_url: TypeUrl, name: &Arc<str>, due: Due) {
        for asked in self.channel(type_url).subscription.touched_by(name) {
            self.pend(type_url, &asked, due);
        }
        // Endpoints whose removal waited for the removal of their cluster, which came back instead.
        let endpoints = TypeUrl::ClusterLoadAssignment;
        if type_url == TypeUrl::Cluster && self.channel(endpoints).deferred.contains(name) {
            self.pend(endpoints, name, due);
        }
    }

    /// For a stream that is too far behind to be told what changed.
    fn touch_all_that_differs(&mut self, now: Instant) {
        let snapshot = self.snapshot.clone();
        let due = Due { since: snapshot.sequence(), at: now, force: false };
        for type_url in TypeUrl::ALL {
            let channel = self.channel(type_url);
            let held = &channel.held;
            let mut names: Vec<Arc<str>> = channel.subscription.names().iter().cloned().collect();
            names.extend(channel.deferred.iter().chain(channel.rejected.keys()).cloned());
            if channel.subscription.wildcard {
                let differs =
                    |r: &&Arc<Resource>| held.get(r.name()).is_none_or(|held| held.version() != r.version());
                names.extend(snapshot.iter(type_url).filter(differs).map(|r| r.name().clone()));
                names.extend(held.keys().filter(|name| snapshot.get(type_url, name).is_none()).cloned());
            }
            for name in names {
                self.pend(type_url, &name, due);
            }
        }
    }

    /// Marks a name to be looked at before the next response of its type.
    fn pend(&mut self, type_url: TypeUrl, name: &Arc<str>, due: Due) {
        let channel = &mut self.channels[type_url as usize];
        channel.deferred.remove(name);
        if let Some(wait) = channel.waiting.remove(name) {
            self.order.stop_waiting(type_url, name, &wait);
            channel.pending.insert(name.clone(), wait.due);
        }
        channel.pending.insert(name.clone(), due);
    }

    /// Marks a name that waited for something which may have come.
    fn look_again(&mut self, type_url: TypeUrl, name: &Arc<str>, now: Instant) {
        self.pend(type_url, name, Due { since: ASKED, at: now, force: false });
    }

    /// Counts a resource out that the client no longer holds; what only it used may go now, a cluster after a while.
    fn release(&mut self, resource: &Resource, now: Instant) {
        let type_url = resource.type_url().requires();
        for name in self.order.release(resource) {
            if type_url == TypeUrl::Cluster {
                self.linger.begin(&name, now + self.settings.cluster_linger);
            } else {
                self.look_at_removal_again(type_url, &name, now);
            }
        }
    }

    fn look_at_removal_again(&mut self, type_url: TypeUrl, name: &Arc<str>, now: Instant) {
        if self.channel(type_url).deferred.contains(name) {
            self.look_again(type_url, name, now);
        }
    }

    fn look_at_removals_again(&mut self, type_url: TypeUrl, now: Instant) {
        let names: Vec<_> = self.channel(type_url).deferred.iter().cloned().collect();
        for name in names {
            self.look_again(type_url, &name, now);
        }
    }

    fn release_doubtful(&mut self, type_url: TypeUrl, name: &str, now: Instant) {
        for resource in self.channel_mut(type_url).doubtful.remove(name).unwrap_or_default() {
            self.release(&resource, now);
        }
    }

    /// Whether everything that the client holds and that may refer to resources of a type is known.
    fn knows_users(&self, type_url: TypeUrl) -> bool {
        let Some(users) = type_url.required_by().map(|users| self.channel(users)) else { return true };
        if users.subscription.asked {
            users.foreign.is_empty()
        } else {
            !self.resumed || self.users_awaited.is_none()
        }
    }

    /// Looks again at removals that waited until everything that may refer to them is known.
    fn recheck_removals(&mut self, now: Instant) {
        if !self.knows_users(TypeUrl::Cluster) {
            self.users_unknown = true;
        } else if std::mem::take(&mut self.users_unknown) && self.resumed {
            self.linger.begin_all(now + self.settings.cluster_linger);
        }
        for type_url in TypeUrl::ALL {
            if !self.knows_users(type_url) {
                continue;
            }
            let channel = self.channel_mut(type_url);
            channel.earlier = HashSet::new();
            if !std::mem::take(&mut channel.awaits_users) {
                continue;
            }
            self.look_at_removals_again(type_url, now);
        }
    }
}
