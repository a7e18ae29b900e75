//! Rate limits: how often something may be asked for, counted by what.
//!
//! This is also the one place that says how Envoy names a limit to the rate limit service. One
//! `RateLimitDescriptor` stands for one limit. Its first entry is [`LIMIT_ENTRY`] with the limit's id; every
//! further entry, its name included, is part of the key that is counted:
//!
//! ```text
//! domain "chancery"
//! [("limit", "Ingress/shop/api/limit-rps"), ("key", "192.0.2.7")]
//! [("limit", "RateLimitPolicy/shop/api/header/x-api-key/60s"), ("key", "a header's value")]
//! ```
//!
//! Envoy builds them with these actions (tried with Envoy 1.40); an action that has no value drops its descriptor,
//! so that what it would count is not limited:
//!
//! - the limit: `generic_key`, `descriptor_key: limit`;
//! - the client's address: `remote_address`, whose entry's name is fixed, or `remote_address_match` with that name,
//!   `descriptor_value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"` and, inverted, the addresses that are exempt;
//! - a header's value and the like: `remote_address_match` with a format string and every address, since `generic_key`
//!   reads format strings only with a runtime flag. An empty value is no value. Of several headers of the name the first
//!   counts, so the upstream is sent that one alone;
//! - a claim of a token: the same with the metadata that `jwt_authn` leaves, since `metadata` has no entry for numbers;
//! - what an answer has cost: the same descriptor with no hits, or those reserved, and again with `apply_on_stream_done` and
//!   [`SETTLE_ENTRY`] for its first entry's name: those hits have been made, and are never refused;
//! - a rate that whoever let the request in has told: one more entry, the last, [`TOLD_ENTRY`];
//! - requests under way: the same descriptor twice, the second with `apply_on_stream_done` and `is_negative_hits`.

use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod counted;
mod pattern;
mod told;
mod wire;

pub use pattern::Pattern;
pub use told::{TOLD_ENTRY, ToldAs, ToldRate, told_rate};
pub use wire::WireError;

pub use crate::values::LimitKey as Key;
use crate::values::calendar::{CalendarUnit, TimeZone};
pub use crate::values::key_set::KeySet;
use crate::values::key_set::{KeyDigest, key_digest};

/// The RLS domain of every descriptor that names one of our limits.
pub const DOMAIN: &str = "chancery";
/// The name of a descriptor's first entry; its value is the limit's id.
pub const LIMIT_ENTRY: &str = "limit";
/// The name of the first entry of a descriptor that is no question: its hits have been made, and count whatever is left.
pub const SETTLE_ENTRY: &str = "settle";
/// The name of an entry that holds a counted value, where Envoy's action lets us choose one.
pub const KEY_ENTRY: &str = "key";

/// One limit. Equal keys of one limit share a counter, wherever the requests came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Unique and stable, such as `Ingress/NAMESPACE/NAME/limit-rps`. Counters outlive every change but one of
    /// their limit's id or algorithm; a gauge's outlive a change of its height.
    pub id: Arc<str>,
    /// What a counter is kept for.
    pub key: Key,
    /// How hits are counted of keys that no plan has.
    pub algorithm: Algorithm,
    /// How hits of some keys are counted instead: by the first plan that has the key's value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plans: Vec<Plan>,
    /// Whether it is counted and refuses nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shadow: bool,
    /// What becomes of requests while shared counters cannot be asked; what the service was told, if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_mode: Option<FailureMode>,
    /// What the service answers for a request that it refuses; without it Envoy's answer has no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Body>,
    /// What clients are told of it as, in headers named as OpenAI's API has them; not told so, if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openai_headers: Option<Counted>,
    /// How another rate is counted that requests say for their key ([`TOLD_ENTRY`]) and that goes before any plan; they say
    /// none, if nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<ToldAs>,
}

/// What the hits of a limit are, to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Counted {
    /// Requests.
    Requests,
    /// What requests or their answers say they cost.
    Tokens,
}

impl Counted {
    /// The headers of OpenAI's API that tell the limit, what remains of it, and when nothing of it will be used.
    #[must_use]
    pub fn openai_headers(self) -> [&'static str; 3] {
        match self {
            Self::Requests => {
                ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]
            }
            Self::Tokens => {
                ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]
            }
        }
    }
}

/// What becomes of requests while shared counters cannot be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureMode {
    /// Each replica counts by itself.
    #[default]
    Local,
    /// They go through.
    Open,
    /// They are answered as while the service does not answer.
    Closed,
}

/// The body of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Body {
    /// As it is.
    Text {
        /// The header `content-type`.
        content_type: Arc<str>,
        /// The body.
        text: Arc<str>,
    },
    /// An `error` with a message that says the limit, and with the seconds to wait, in the shape of OpenAI's.
    Json,
}

impl Limit {
    /// A limit that is the same for all keys.
    #[must_use]
    pub fn new(id: Arc<str>, key: Key, algorithm: Algorithm) -> Self {
        Self {
            id,
            key,
            algorithm,
            plans: Vec::new(),
            shadow: false,
            failure_mode: None,
            body: None,
            openai_headers: None,
            told: None,
        }
    }
}

/// How hits of some keys are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// For people.
    pub name: Arc<str>,
    /// The keys that have it.
    pub matches: KeyMatch,
    /// How their hits are counted.
    pub algorithm: Algorithm,
}

/// Which keys have a plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeyMatch {
    /// Those whose value begins so.
    Prefix(Arc<str>),
    /// Those whose whole value matches.
    Regex(Pattern),
    /// These.
    Exact(KeySet),
}

impl KeyMatch {
    /// `digest` is the value's, once somebody has asked for it.
    fn has(&self, value: &str, digest: &mut Option<KeyDigest>) -> bool {
        match self {
            Self::Exact(keys) => keys.has(digest.get_or_insert_with(|| key_digest(value.as_bytes()))),
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

/// How hits are counted. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Algorithm {
    /// A leaky bucket of `burst + 1` hits that drains `requests` hits every `period_ms`.
    Gcra {
        /// Hits a period.
        requests: u32,
        /// The period.
        period_ms: u64,
        /// Hits that may come at once on top of the first.
        burst: u32,
    },
    /// `requests` hits in a window that begins with a key's first hit and lasts `window_ms`.
    FixedWindow {
        /// Hits a window.
        requests: u32,
        /// The length of the window.
        window_ms: u64,
    },
    /// `requests` hits in each of the windows of `window_ms` that follow on one another since 1970, as
    /// envoyproxy/ratelimit has them. All keys begin anew at the same moment, by the wall clock.
    AlignedWindow {
        /// Hits a window.
        requests: u32,
        /// The length of the windows.
        window_ms: u64,
    },
    /// `requests` hits in any `window_ms`, whenever it begins, told from counts of its eighths.
    SlidingWindow {
        /// Hits a window.
        requests: u32,
        /// The length of the window.
        window_ms: u64,
    },
    /// `requests` hits in each day, week, month or year of a place.
    Calendar {
        /// Hits a period.
        requests: u32,
        /// The period.
        unit: CalendarUnit,
        /// The place.
        time_zone: TimeZone,
    },
    /// `limit` requests under way at once. Envoy charges a hit when a request comes and gives it back at its end
    /// (`apply_on_stream_done` and `is_negative_hits`), which it does for every request that it charged, whoever
    /// refused it: so it is charged for refused ones too. One that is never given back counts for `lease_ms`.
    Concurrency {
        /// Requests at once.
        limit: u32,
        /// The time after which a request is taken to have ended; longer than requests last.
        lease_ms: u64,
    },
}

impl Algorithm {
    /// What nginx's `limit_req` with `nodelay` does for this rate and burst, to the hit.
    ///
    /// nginx keeps a rate in thousandths of a request a second and rounds it down, so that 100 a minute is
    /// 1.666 a second; `ngx_http_limit_req_module.c` is the source of the rule. A rate that this leaves as it
    /// is keeps its own period.
    #[must_use]
    pub fn limit_req(requests: u32, period_ms: u64, burst: u32) -> Self {
        let scaled = u64::from(requests) * THOUSAND_SECONDS_MS;
        let period_ms = period_ms.max(1);
        match u32::try_from(scaled / period_ms) {
            Ok(thousandths) if !scaled.is_multiple_of(period_ms) => {
                Self::Gcra { requests: thousandths, period_ms: THOUSAND_SECONDS_MS, burst }
            }
            _ => Self::Gcra { requests, period_ms, burst },
        }
    }

    /// What "N in T" means where nothing else is said: from a minute on a window that slides, so that its edges cannot be
    /// made use of; a shorter one begins with a key's first hit.
    #[must_use]
    pub fn window(requests: u32, window_ms: u64) -> Self {
        if window_ms < MINUTE_MS {
            Self::FixedWindow { requests, window_ms }
        } else {
            Self::SlidingWindow { requests, window_ms }
        }
    }

    /// The hits and the milliseconds of "N in T", for people and response headers. 0 milliseconds mean "at once"; a month
    /// has 30 days here, and a year 365; a rate a minute that nginx rounds down is that of before.
    #[must_use]
    pub fn quota(&self) -> (u32, u64) {
        const DAY_MS: u64 = 86_400_000;
        match *self {
            Self::Gcra { requests, period_ms, .. } => {
                let minute = || a_minute(requests).filter(|_| period_ms == THOUSAND_SECONDS_MS);
                minute().map_or((requests, period_ms), |requests| (requests, MINUTE_MS))
            }
            Self::FixedWindow { requests, window_ms }
            | Self::AlignedWindow { requests, window_ms }
            | Self::SlidingWindow { requests, window_ms } => (requests, window_ms),
            Self::Calendar { requests, unit, .. } => (requests, unit.days() * DAY_MS),
            Self::Concurrency { limit, .. } => (limit, 0),
        }
    }
}

const MINUTE_MS: u64 = 60_000;
/// In which nginx counts what it keeps in thousandths a second.
const THOUSAND_SECONDS_MS: u64 = 1_000_000;

/// The hits a minute that nginx keeps as so many in a thousand seconds, if it keeps any so.
fn a_minute(thousandths: u32) -> Option<u32> {
    let requests = (u64::from(thousandths) * MINUTE_MS).div_ceil(THOUSAND_SECONDS_MS);
    let kept = requests * THOUSAND_SECONDS_MS / MINUTE_MS;
    u32::try_from(requests).ok().filter(|_| kept == u64::from(thousandths))
}

/// Every limit that is in force, by id. Cheap to clone and to change by one; as JSON, a list ordered by id.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct LimitSet(OrdMap<Arc<str>, Limit>);

impl LimitSet {
    /// The limit of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Limit> {
        self.0.get(id)
    }

    /// Adds a limit, in place of any other of its id. An equal one changes nothing, so that the set stays the same.
    pub fn insert(&mut self, limit: Limit) {
        if self.get(&limit.id) != Some(&limit) {
            self.0.insert(limit.id.clone(), limit);
        }
    }

    /// Whether it is the very same set, which is cheap to tell: neither was changed since one was cloned of the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    /// Takes a limit away.
    pub fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// All limits, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Limit> {
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for LimitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl FromIterator<Limit> for LimitSet {
    fn from_iter<I: IntoIterator<Item = Limit>>(limits: I) -> Self {
        Self(limits.into_iter().map(|limit| (limit.id.clone(), limit)).collect())
    }
}

impl Serialize for LimitSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for LimitSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Limit>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_as_nginx_keeps_it() {
        let gcra = |requests, period_ms| Algorithm::Gcra { requests, period_ms, burst: 5 };
        for ((requests, period), kept) in [
            ((10, 1_000), gcra(10, 1_000)),
            ((60, 60_000), gcra(60, 60_000)),
            ((300, 60_000), gcra(300, 60_000)),
            ((100, 60_000), gcra(1_666, 1_000_000)),
            ((1, 60_000), gcra(16, 1_000_000)),
        ] {
            assert_eq!(Algorithm::limit_req(requests, period, 5), kept, "{requests} in {period} ms");
            assert_eq!(kept.quota(), (requests, period));
        }
        for requests in 1..5_000 {
            assert_eq!(Algorithm::limit_req(requests, 60_000, 5).quota(), (requests, 60_000));
        }
        assert_eq!(Algorithm::limit_req(100, 3_600_000, 5).quota(), (27, 1_000_000), "a rate an hour");
    }

    #[test]
    fn windows_slide_from_a_minute_on() {
        for (window_ms, slides) in [(1_000, false), (59_000, false), (60_000, true), (86_400_000, true)] {
            let window = Algorithm::window(5, window_ms);
            assert_eq!(matches!(window, Algorithm::SlidingWindow { .. }), slides, "{window_ms}");
            assert_eq!(window.quota(), (5, window_ms));
        }
    }

    #[test]
    fn a_keys_value_picks_the_plan() {
        let window = |requests| Algorithm::FixedWindow { requests, window_ms: 60_000 };
        let plan =
            |name: &str, matches, requests| Plan { name: name.into(), matches, algorithm: window(requests) };
        let limit = Limit {
            plans: vec![
                plan("pro", KeyMatch::Prefix("pro_".into()), 2),
                plan("named", KeyMatch::Exact(KeySet::of_lines(b"pro_2\nsilver")), 4),
                plan("gold", KeyMatch::Regex(Pattern::new("gold|p.*").unwrap()), 3),
            ],
            shadow: true,
            body: Some(Body::Json),
            ..Limit::new("l".into(), Key::Header("x-api-key".into()), window(1))
        };
        for (value, requests) in [
            ("pro_1", 2),
            ("pro_2", 2),
            ("silver", 4),
            ("silver ", 1),
            ("gold", 3),
            ("golden", 1),
            ("xgold", 1),
            ("p\n", 3),
            ("", 1),
            ("free", 1),
        ] {
            let picked = limit.for_value(value);
            assert_eq!((picked.algorithm, picked.shadow), (window(requests), true), "{value:?}");
            assert_eq!(picked.body, Some(Body::Json));
        }
        let json = serde_json::to_value(&limit).unwrap();
        assert_eq!(json["plans"][2]["matches"], serde_json::json!({"regex": "gold|p.*"}));
        let read: Limit = serde_json::from_value(json).unwrap();
        assert_eq!(read, limit);
        assert_eq!(read.for_value("gold").algorithm, window(3));
        assert_eq!(read.for_value("silver").algorithm, window(4));
        assert!(Pattern::new("(").is_err());
    }

    #[test]
    fn a_set_is_a_list_in_json() {
        let json = serde_json::json!([
            {"id": "a", "key": "clientAddress", "algorithm": {"gcra": {"requests": 1, "periodMs": 1000, "burst": 5}}},
            {"id": "b", "key": {"header": "x-api-key"}, "algorithm": {"fixedWindow": {"requests": 5, "windowMs": 60000}}},
            {"id": "c", "key": "clientAddress", "algorithm": {"slidingWindow": {"requests": 5, "windowMs": 60000}}},
            {"id": "d", "key": "clientAddress", "algorithm": {"concurrency": {"limit": 4, "leaseMs": 60000}}},
            {"id": "e", "key": "clientAddress", "algorithm": {"alignedWindow": {"requests": 5, "windowMs": 1000}}},
            {"id": "f", "key": "clientAddress", "algorithm":
                {"calendar": {"requests": 5, "unit": "month", "timeZone": "Europe/Berlin"}}},
        ]);
        let set: LimitSet = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(set.len(), 6);
        assert_eq!(set.get("f").unwrap().algorithm.quota(), (5, 2_592_000_000));
        assert_eq!(set.get("b").unwrap().key, Key::Header("x-api-key".into()));
        assert_eq!(serde_json::to_value(&set).unwrap(), json);
    }
}
