//! The rule by its definition, and how near it comes to a log of every hit under traffic of many kinds.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Every hit that was let through, in a list.
struct Log {
    limit: u64,
    window_ms: u64,
    taken: Vec<u64>,
}

impl Log {
    /// Eighths of a window since the epoch, and the rest, as eighths of a millisecond.
    fn part(&self, time: u64) -> (u64, u64) {
        (time * 8 / self.window_ms, time * 8 % self.window_ms)
    }

    fn used(&self, now: u64) -> u64 {
        let (part, rest) = self.part(now);
        let ago =
            |n: u64| self.taken.iter().filter(move |taken| self.part(**taken).0 + n == part).count() as u64;
        let evenly = (ago(8) * rest) / self.window_ms;
        let at_the_limit = (self.limit * rest) / (8 * self.window_ms);
        (0..=8).map(ago).sum::<u64>() - evenly.min(at_the_limit)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn equals_the_definition_to_the_hit(
        requests in 0u32..40, window_ms in 1u64..500,
        steps in prop::collection::vec((0u64..90, 0u64..9, prop::bool::weighted(0.2)), 1..120),
    ) {
        let window = SlidingWindow { requests, window_ms };
        let limit = u64::from(requests);
        let (mut log, mut state, mut now) = (Log { limit, window_ms, taken: Vec::new() }, State::default(), 3_000);
        for (gap, n, back) in steps {
            now += gap;
            if back {
                state = window.count(state, Hits::Return(n), now).state;
                let recent = log.taken.iter().filter(|taken| log.part(**taken).0 + 8 >= log.part(now).0).count();
                log.taken.truncate(log.taken.len() - recent.min(usize::try_from(n).unwrap()));
                continue;
            }
            let verdict = window.count(state, Hits::Take(n), now);
            let allowed = log.used(now) + n.max(1) <= limit;
            prop_assert_eq!(verdict.allowed, allowed, "at {}", now);
            if allowed {
                log.taken.extend(std::iter::repeat_n(now, usize::try_from(n).unwrap()));
            } else {
                prop_assert_eq!(verdict.state, state);
            }
            prop_assert_eq!(verdict.remaining, limit.saturating_sub(log.used(now)));
            let at = now + verdict.reset_ms;
            if !allowed && n.max(1) <= limit {
                prop_assert!(log.used(at - 1) + n.max(1) > limit && log.used(at) + n.max(1) <= limit, "{}", at);
            } else if log.used(now) > 0 {
                prop_assert!(log.used(at - 1) > 0 && log.used(at) == 0, "{}", at);
            }
            state = verdict.state;
            let idle = verdict.idle_at.max(now);
            for hits in [Hits::Take(1), Hits::Take(0), Hits::Return(1)] {
                let (kept, fresh) = (window.count(state, hits, idle), window.count(State::default(), hits, idle));
                prop_assert_eq!(
                    (kept.allowed, kept.remaining, kept.reset_ms),
                    (fresh.allowed, fresh.remaining, fresh.reset_ms)
                );
            }
        }
    }

    /// Bursts and silences of any length, wherever they fall on the grid.
    #[test]
    fn no_window_holds_more_than_an_eighth_above_the_limit(
        requests in 1u32..100, window_ms in 8u64..2_000,
        bursts in prop::collection::vec((0.0..1.5f64, 1usize..60), 1..60),
    ) {
        let window = SlidingWindow { requests, window_ms };
        let mut times = vec![1_000_000];
        for (gap, n) in bursts {
            let now = times[times.len() - 1] + (gap * window_ms as f64) as u64;
            times.extend(std::iter::repeat_n(now, n));
        }
        let through = admitted(&times, |state, now| window.count(state, Hits::Take(1), now));
        prop_assert!(worst(&through, window_ms) <= requests as usize + requests as usize / 8);
    }

    #[test]
    fn nothing_panics(
        requests: u32, window_ms: u64, at: u64, used: u32, earlier: [u32; 8], n: u64, kind in 0usize..3, now: u64,
    ) {
        let hits = [Hits::Return(n), Hits::Take(n), Hits::Charge(n)][kind];
        let state = State { at, used: used.into(), earlier };
        let _ = SlidingWindow { requests, window_ms }.count(state, hits, now);
    }
}

const LIMIT: u32 = 100;
const WINDOW_MS: u64 = 60_000;
const WINDOWS: u64 = 2_000;

/// Numbers that look random and are always the same.
struct Random(u64);

impl Random {
    /// Evenly in (0, 1].
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// Times of hits that come by chance, so many windowfuls a window as `rate` says for the time in windows.
fn by_chance(rate: impl Fn(f64) -> f64) -> Vec<u64> {
    const MOST: f64 = 40.0;
    let (mut random, mut at, mut times) = (Random(0x9E37_79B9_7F4A_7C15), 0.0, Vec::new());
    while at < WINDOWS as f64 {
        at -= random.unit().ln() / (MOST * f64::from(LIMIT));
        if random.unit() <= rate(at) / MOST {
            times.push((at * WINDOW_MS as f64) as u64);
        }
    }
    times
}

/// Twice the limit around every second boundary of windows.
fn boundary_attack() -> Vec<u64> {
    let pulse = |n: u64| (0..200).map(move |hit| (2 * n + 1) * WINDOW_MS - 3_000 + hit * 30);
    (0..WINDOWS / 2).flat_map(pulse).collect()
}

/// Which of the hits are let through.
fn admitted(times: &[u64], mut count: impl FnMut(State, u64) -> Verdict) -> VecDeque<u64> {
    let mut state = State::default();
    let mut through = VecDeque::new();
    for now in times {
        let verdict = count(state, *now);
        state = verdict.state;
        if verdict.allowed {
            through.push_back(*now);
        }
    }
    through
}

/// What a log of every hit lets through: never more than the limit in any window.
fn exact(times: &[u64]) -> usize {
    let mut log: VecDeque<u64> = VecDeque::new();
    let through = times.iter().filter(|now| {
        while log.front().is_some_and(|first| **now - first >= WINDOW_MS) {
            log.pop_front();
        }
        let allowed = log.len() < LIMIT as usize;
        if allowed {
            log.push_back(**now);
        }
        allowed
    });
    through.count()
}

/// The most hits in any window.
fn worst(through: &VecDeque<u64>, window_ms: u64) -> usize {
    let mut first = 0;
    let most = through.iter().enumerate().map(|(last, now)| {
        while now - through[first] >= window_ms {
            first += 1;
        }
        last + 1 - first
    });
    most.max().unwrap_or(0)
}

/// A burst at the end of a part, and then no pause: it comes back as early as it can.
fn knows_the_grid() -> Vec<u64> {
    let round = |n: u64| {
        let burst = (0..100).map(move |hit| 4 * n * WINDOW_MS + 7_300 + hit);
        burst.chain((0..7_500).map(move |hit| (4 * n + 1) * WINDOW_MS + hit))
    };
    (0..20).flat_map(round).collect()
}

/// The limit is 100, so the most hits in a window are percents too.
#[test]
fn comes_near_the_log_of_every_hit() {
    let pulses = |time: f64| {
        let to_boundary = time.rem_euclid(1.0);
        if to_boundary <= 0.05 || to_boundary >= 0.95 { 40.0 } else { 0.0 }
    };
    let on_and_off = |time: f64| if time.rem_euclid(2.0) < 1.0 { 3.0 } else { 0.0 };
    let sine = |time: f64| 1.0 + 0.7 * (time * std::f64::consts::TAU / 10.0).sin();
    let traffics: [(&str, Vec<u64>, usize, f64); 7] = [
        ("Poisson, 0.8", by_chance(|_| 0.8), 108, 0.5),
        ("Poisson, 1.5", by_chance(|_| 1.5), 108, 0.5),
        ("on and off, 3", by_chance(on_and_off), 108, 0.5),
        ("sine, 0.3 to 1.7", by_chance(sine), 108, 0.5),
        ("boundary attack", boundary_attack(), 108, 0.5),
        ("pulses of 40", by_chance(pulses), 108, 50.0),
        ("attack that knows the grid", knows_the_grid(), 112, 50.0),
    ];
    for (name, times, most, off) in traffics {
        let window = SlidingWindow { requests: LIMIT, window_ms: WINDOW_MS };
        let through = admitted(&times, |state, now| window.count(state, Hits::Take(1), now));
        let difference = 100.0 * (through.len() as f64 / exact(&times) as f64 - 1.0);
        let worst = worst(&through, WINDOW_MS);
        assert!(worst <= most && difference.abs() <= off, "{name}: {worst} %, {difference:+.2} %");
    }
}

#[test]
fn what_was_used_comes_back_as_it_grows_old() {
    let window = SlidingWindow { requests: 64, window_ms: 8_000 };
    let full = window.count(State::default(), Hits::Take(64), 16_500);
    assert_eq!((full.allowed, full.remaining, full.reset_ms), (true, 0, 8_500));
    let left = |now| window.count(full.state, Hits::Take(0), now).remaining;
    assert_eq!([24_000, 24_124, 24_125, 24_999, 25_000].map(left), [0, 0, 1, 7, 64]);
    let refused = |n| window.count(full.state, Hits::Take(n), 17_000);
    assert_eq!((refused(3).allowed, refused(3).reset_ms), (false, 24_375 - 17_000));
    assert_eq!([8, 64, 65].map(|n| refused(n).reset_ms), [8_000; 3], "the rest comes at the end of the part");
}
