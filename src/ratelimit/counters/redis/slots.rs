//! The slots of a cluster whose server does not answer: who asks for one of them does not wait, and all others go on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::cluster_routing::Slot;

use super::link::LATE;

/// How often a slot is tried while it is away.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// How long a slot that nobody asks for is remembered.
const FORGET_AFTER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
struct Missed {
    /// Answers in a row that did not come in time.
    late: u32,
    at: Instant,
}

/// What was missed of which slot.
#[derive(Default)]
pub(super) struct Slots {
    /// How many there are: none is what there should be, and costs no lock.
    count: AtomicUsize,
    missed: Mutex<HashMap<Slot, Missed>>,
}

impl Slots {
    fn missed(&self) -> MutexGuard<'_, HashMap<Slot, Missed>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to ask for it. Of one that is away one call in a while is to find out.
    pub(super) fn asks(&self, slot: Slot, now: Instant) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let mut missed = self.missed();
        let Some(missed) = missed.get_mut(&slot).filter(|missed| missed.late >= LATE) else { return true };
        let due = now >= missed.at + TRY_EVERY;
        if due {
            missed.at = now;
        }
        due
    }

    pub(super) fn answered(&self, slot: Slot) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut missed = self.missed();
            missed.remove(&slot);
            self.count.store(missed.len(), Ordering::Release);
        }
    }

    /// Notes that a call begun at this time had no answer: one that is late, or none at all. Whether the slot is away
    /// now and was not before.
    pub(super) fn miss(&self, slot: Slot, late: bool, begun: Instant, now: Instant) -> bool {
        let mut missed = self.missed();
        let entry = missed.entry(slot).or_insert(Missed { late: 0, at: begun });
        let was = entry.late;
        if !late {
            *entry = Missed { late: LATE, at: now };
        } else if begun >= entry.at {
            // Those that were waited for at once are one.
            *entry = Missed { late: LATE.min(entry.late + 1), at: now };
        }
        let away = entry.late >= LATE && was < LATE;
        self.count.store(missed.len(), Ordering::Release);
        away
    }

    /// Forgets what nobody has asked for in a while.
    pub(super) fn sweep(&self, now: Instant) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut missed = self.missed();
            missed.retain(|_, missed| now < missed.at + FORGET_AFTER);
            self.count.store(missed.len(), Ordering::Release);
        }
    }

    /// All is as it should be, as far as is known.
    pub(super) fn clear(&self) {
        let mut missed = self.missed();
        missed.clear();
        self.count.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_is_away_and_tried_now_and_then() {
        let (slots, start) = (Slots::default(), Instant::now());
        let (one, other) = (Slot::for_key("1"), Slot::for_key("2"));
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!slots.miss(one, true, at(0), at(8)));
        for _ in 0..9 {
            assert!(!slots.miss(one, true, at(1), at(9)), "the same wait");
        }
        assert!(!slots.miss(one, true, at(8), at(16)) && slots.asks(one, at(16)));
        assert!(slots.miss(one, true, at(16), at(24)));
        assert!(!slots.asks(one, at(25)) && slots.asks(other, at(25)));
        assert!(slots.asks(one, at(124)) && !slots.asks(one, at(125)), "one call tries");
        slots.answered(one);
        assert!(slots.asks(one, at(126)));
        assert!(slots.miss(one, false, at(127), at(127)) && !slots.asks(one, at(128)), "no answer at all");
        assert!(!slots.miss(one, false, at(129), at(129)));
        slots.sweep(at(10_128));
        assert!(!slots.asks(one, at(130)), "still remembered");
        slots.sweep(at(10_130));
        assert!(slots.asks(one, at(10_131)), "nobody asked");
        slots.clear();
        assert!(slots.asks(one, at(130)));
    }
}
