//! Who leads, by a `coordination.k8s.io` Lease. Pure: time is an argument.
//!
//! As in Kubernetes' own leader election, a Lease has run out when it was seen unchanged for its whole duration by the
//! candidate's own clock, so that no two clocks are ever compared.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// How long a Lease is good for after its renewal, in seconds.
pub(super) const DURATION: i32 = 15;
/// Who could not renew for so long leads no more, well before another one may.
pub(super) const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often a leader renews, and a candidate looks.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// What a candidate knows of the Lease.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    /// The Lease as it was last seen, and since when it has been so.
    seen: Option<(LeaseSpec, Instant)>,
    /// When this candidate last asked for what it then got.
    renewed: Option<Instant>,
}

impl Election {
    pub(super) fn new(identity: String) -> Self {
        Self { identity, seen: None, renewed: None }
    }

    /// The Lease was read: what to write, if anything. `now` is from before it was asked for.
    pub(super) fn read(
        &mut self,
        lease: Option<&LeaseSpec>,
        now: Instant,
        clock: Timestamp,
    ) -> Option<LeaseSpec> {
        let lease = lease.cloned().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        if holder == self.identity {
            return Some(LeaseSpec { renew_time: Some(MicroTime(clock)), ..lease });
        }
        self.renewed = None;
        (holder.is_empty() || self.runs_out().is_none_or(|end| end <= now)).then(|| LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(DURATION),
            acquire_time: Some(MicroTime(clock)),
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(lease.lease_transitions.map_or(0, |count| count.saturating_add(1))),
            ..LeaseSpec::default()
        })
    }

    /// What was to be written is written; `now` is from before it was asked for.
    pub(super) fn written(&mut self, lease: LeaseSpec, now: Instant) {
        self.seen = Some((lease, now));
        self.renewed = Some(now);
    }

    /// Until when this candidate leads, if it does.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + RENEW_WITHIN)
    }

    /// Whether this candidate leads.
    pub(super) fn leads(&self, now: Instant) -> bool {
        self.leads_until().is_some_and(|end| now < end)
    }

    /// When to look again: at the next turn, or when another's Lease runs out.
    pub(super) fn next(&self, now: Instant) -> Duration {
        let end = self.runs_out().filter(|end| self.renewed.is_none() && *end > now);
        end.map_or(RETRY, |end| RETRY.min(end - now))
    }

    /// The Lease given up, if this candidate holds it: others need not wait until it runs out.
    pub(super) fn release(&mut self, clock: Timestamp) -> Option<LeaseSpec> {
        self.renewed.take()?;
        let (held, _) = self.seen.take()?;
        let renew_time = Some(MicroTime(clock));
        Some(LeaseSpec { holder_identity: None, lease_duration_seconds: Some(1), renew_time, ..held })
    }

    fn runs_out(&self) -> Option<Instant> {
        let (lease, since) = self.seen.as_ref()?;
        let seconds = lease.lease_duration_seconds.unwrap_or(DURATION).max(1);
        Some(*since + Duration::from_secs(seconds.unsigned_abs().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Timestamp = Timestamp::UNIX_EPOCH;

    /// A Lease that candidates read and write, and a clock.
    struct World {
        lease: Option<LeaseSpec>,
        start: Instant,
        seconds: f64,
        /// By how many seconds the wall clock of who comes next is wrong.
        off: f64,
    }

    impl World {
        fn new() -> Self {
            Self { lease: None, start: Instant::now(), seconds: 0.0, off: 0.0 }
        }

        fn now(&self) -> Instant {
            self.start + Duration::from_secs_f64(self.seconds)
        }

        /// The renewal time tells writes apart.
        fn clock(&self) -> Timestamp {
            CLOCK + jiff::SignedDuration::from_secs_f64(self.seconds + self.off)
        }

        fn turn(&mut self, candidate: &mut Election) -> bool {
            let now = self.now();
            if let Some(lease) = candidate.read(self.lease.as_ref(), now, self.clock()) {
                self.lease = Some(lease.clone());
                candidate.written(lease, now);
            }
            candidate.leads(now)
        }
    }

    fn two() -> (World, Election, Election) {
        (World::new(), Election::new("a".into()), Election::new("b".into()))
    }

    #[test]
    fn the_first_leads_while_it_renews() {
        let (mut world, mut a, mut b) = two();
        for second in 0..100 {
            world.seconds = f64::from(second);
            assert!(world.turn(&mut a), "{second}");
            assert!(!world.turn(&mut b), "{second}");
        }
    }

    #[test]
    fn clocks_that_step_change_nothing() {
        let (mut world, mut a, mut b) = two();
        for second in 0..100 {
            world.seconds = f64::from(second);
            // The leader's clock jumps to and fro, and the other one's is years ahead.
            world.off = if second % 3 == 0 { -86_400.0 } else { 3_600.0 };
            assert!(world.turn(&mut a), "{second}");
            world.off = 1e8;
            assert!(!world.turn(&mut b), "{second}");
        }
        world.off = -1e8;
        world.seconds = 113.9;
        assert!(!world.turn(&mut b), "the last renewal was seen at 99 seconds");
        world.seconds = 114.0;
        assert!(world.turn(&mut b));
    }

    #[test]
    fn another_leads_once_the_lease_has_run_out() {
        let (mut world, mut a, mut b) = two();
        world.turn(&mut a);
        world.seconds = 1.0;
        assert!(!world.turn(&mut b));
        // The first is dead now. Another one looks as it is told to.
        let mut taken = false;
        while !taken {
            world.seconds += b.next(world.now()).as_secs_f64();
            taken = world.turn(&mut b);
        }
        assert_eq!(world.seconds, 16.0);
        assert!(!a.leads(world.now()), "the first knows that it does not");
        assert_eq!(world.lease.as_ref().and_then(|lease| lease.lease_transitions), Some(1));
        assert!(!world.turn(&mut a), "nor does it take it back");
    }

    #[test]
    fn who_cannot_renew_leads_no_more() {
        let (mut world, mut a, _) = two();
        world.turn(&mut a);
        world.seconds = 9.9;
        assert!(a.leads(world.now()));
        world.seconds = 10.0;
        assert!(!a.leads(world.now()));
    }

    #[test]
    fn a_lease_that_was_given_up_is_taken_at_once() {
        let (mut world, mut a, mut b) = two();
        assert_eq!(a.release(CLOCK), None);
        world.turn(&mut a);
        assert!(!world.turn(&mut b));
        world.lease = a.release(world.clock());
        assert!(!a.leads(world.now()));
        assert!(world.turn(&mut b));
    }

    #[test]
    fn a_lease_of_ones_own_goes_on_after_a_restart() {
        let (mut world, mut a, _) = two();
        world.turn(&mut a);
        world.seconds = 5.0;
        assert!(world.turn(&mut Election::new("a".into())));
        assert_eq!(world.lease.unwrap().lease_transitions, Some(0));
    }
}
