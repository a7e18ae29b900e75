//! Hits that keys were granted on top of their limits, until their present window ends, where this process alone counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ratelimit::counters::{Ask, Hits, MOST_GRANTS, Outcome, Role};
use crate::ratelimit::fingerprint::Fingerprint;

/// All grants.
#[derive(Debug, Default)]
pub(in crate::ratelimit) struct Grants {
    /// How many there are; tells without the lock that there are none.
    count: AtomicUsize,
    grants: Mutex<HashMap<Fingerprint, Grant>>,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    left: u64,
    until: Instant,
}

impl Grants {
    /// Whether nobody has any.
    pub(in crate::ratelimit) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Grants more hits to a key, for so long. Those that it has still go with the new ones. Whether there was room.
    pub(super) fn add(&self, key: Fingerprint, hits: u64, lasts: Duration, now: Instant) -> bool {
        let mut grants = self.lock();
        // What is used up stays until it ends: some of it may come back.
        grants.retain(|_, grant| now < grant.until);
        let room = grants.len() < MOST_GRANTS || grants.contains_key(&key);
        // Longer than anybody waits.
        let until = now.checked_add(lasts).unwrap_or(now + Duration::from_secs(366 * 86_400));
        if room {
            let grant = grants.entry(key).or_insert(Grant { left: 0, until });
            *grant = Grant { left: grant.left.saturating_add(hits), until };
        }
        self.count.store(grants.len(), Ordering::Release);
        room
    }

    /// What a key has left.
    pub(in crate::ratelimit) fn left(&self, key: Fingerprint, now: Instant) -> u64 {
        let mut grants = self.lock();
        let Some(grant) = grants.get(&key) else { return 0 };
        if now < grant.until {
            return grant.left;
        }
        grants.remove(&key);
        self.count.store(grants.len(), Ordering::Release);
        0
    }

    /// Takes up to so many hits, and says how many.
    pub(in crate::ratelimit) fn take(&self, key: Fingerprint, hits: u64, now: Instant) -> u64 {
        let mut grants = self.lock();
        let Some(grant) = grants.get_mut(&key).filter(|grant| now < grant.until) else { return 0 };
        let taken = grant.left.min(hits);
        grant.left -= taken;
        taken
    }

    /// Gives back what was taken for a request that was refused.
    pub(in crate::ratelimit) fn give_back(&self, key: Fingerprint, hits: u64) {
        if let Some(grant) = self.lock().get_mut(&key) {
            grant.left = grant.left.saturating_add(hits);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, Grant>> {
        // Grants are whole whatever happened to another holder of the lock.
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What grants pay of one request.
#[derive(Debug, Default)]
pub(in crate::ratelimit) struct Covered(Vec<Cover>);

#[derive(Debug)]
struct Cover {
    /// The place of its ask.
    at: usize,
    key: Fingerprint,
    taken: u64,
    /// Whether nothing is left for the counter to count.
    whole: bool,
    /// Whether it stays taken if the request is refused.
    charged: bool,
}

impl Covered {
    /// Takes what grants have for these asks, and leaves the rest for the counters.
    pub(in crate::ratelimit) fn take(
        grants: &Grants,
        asks: &mut [Ask<'_>],
        key: impl Fn(&Ask<'_>) -> Fingerprint,
    ) -> Self {
        let now = Instant::now();
        let mut covered = Vec::new();
        for (at, ask) in asks.iter_mut().enumerate() {
            let (Hits::Take(hits) | Hits::Charge(hits)) = ask.hits else { continue };
            let (key, charged) = (key(ask), matches!(ask.hits, Hits::Charge(_)));
            if grants.left(key, now) == 0 {
                continue;
            }
            let taken = grants.take(key, hits, now);
            let whole = taken == hits;
            if whole {
                ask.hits = Hits::Take(0);
            } else if charged {
                ask.hits = Hits::Charge(hits - taken);
            } else {
                ask.hits = Hits::Take(hits - taken);
            }
            covered.push(Cover { at, key, taken, whole, charged });
        }
        let covered = Self(covered);
        covered.set_roles(asks);
        covered
    }

    /// What is wholly paid refuses nothing, whatever the counter says. Nor do quotas, if all of one of them is: it is not
    /// used up.
    fn set_roles(&self, asks: &mut [Ask<'_>]) {
        let whole = |at: usize| self.0.iter().any(|cover| cover.at == at && cover.whole);
        let is_paid = |of: &Ask<'_>| {
            matches!(of.role, Role::Quota(_))
                && asks.iter().enumerate().all(|(at, ask)| ask.role != of.role || whole(at))
        };
        let quota_left = asks.iter().any(is_paid);
        for (at, ask) in asks.iter_mut().enumerate() {
            if whole(at) || (quota_left && matches!(ask.role, Role::Quota(_))) {
                ask.role = Role::Shadow;
            }
        }
    }

    /// Has what is wholly paid be allowed.
    pub(in crate::ratelimit) fn allow(&self, outcomes: &mut [Outcome]) {
        for Cover { at, whole, .. } in &self.0 {
            if let Some(outcome) = outcomes.get_mut(*at) {
                outcome.allowed |= whole;
            }
        }
    }

    /// Has outcomes say what is left with the grants.
    pub(in crate::ratelimit) fn add_left(&self, grants: &Grants, outcomes: &mut [Outcome]) {
        let now = Instant::now();
        for Cover { at, key, .. } in &self.0 {
            if let Some(outcome) = outcomes.get_mut(*at) {
                outcome.remaining = outcome.remaining.saturating_add(grants.left(*key, now));
            }
        }
    }

    /// Gives back what was taken for a request that does not go through.
    pub(in crate::ratelimit) fn give_back(&self, grants: &Grants) {
        for Cover { key, taken, .. } in self.0.iter().filter(|cover| !cover.charged) {
            grants.give_back(*key, *taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_used_up_and_end() {
        let (grants, now, minute) = (Grants::default(), Instant::now(), Duration::from_secs(60));
        let (key, other) = (Fingerprint(1), Fingerprint(2));
        assert!(grants.is_empty() && grants.take(key, 1, now) == 0);
        assert!(grants.add(key, 3, minute, now) && grants.add(key, 2, minute, now));
        assert!(!grants.is_empty());
        assert_eq!(
            (grants.take(key, 4, now), grants.take(key, 4, now), grants.take(other, 1, now)),
            (4, 1, 0)
        );
        grants.give_back(key, 2);
        assert_eq!(grants.left(key, now), 2);
        assert_eq!(grants.take(key, 1, now + minute), 0);
        assert!(!grants.is_empty());
        assert_eq!(grants.left(key, now + minute), 0);
        assert!(grants.is_empty(), "what has ended costs nobody anything");
        grants.add(other, 1, Duration::MAX, now + minute);
        assert_eq!(grants.lock().len(), 1, "what has ended goes");
    }

    #[test]
    fn there_are_so_many_at_a_time() {
        let (grants, now) = (Grants::default(), Instant::now());
        let add = |n| grants.add(Fingerprint(n), 1, Duration::from_secs(60), now);
        assert!((0..MOST_GRANTS as u64).all(add) && !add(u64::MAX) && add(1));
    }
}
