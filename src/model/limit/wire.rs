//! Limits as messages, and back: nothing is lost on the way.

use super::{Algorithm, Body, Counted, FailureMode, Key, KeyMatch, KeySet, Limit, Pattern, Plan, ToldAs};
use crate::messages::ratelimit as message;
use crate::values::TokenClaim;
use crate::values::calendar::{CalendarUnit, TimeZone};

use message::algorithm::Kind;
use message::key::By;
use message::plan::Matches;

/// How deep keys may be nested; ours are not nested at all.
const MAX_DEPTH: usize = 4;

/// Why a message is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct WireError {
    at: String,
    reason: String,
}

impl WireError {
    fn new(at: &str, reason: impl Into<String>) -> Self {
        Self { at: at.to_owned(), reason: reason.into() }
    }

    fn below(mut self, at: &str) -> Self {
        self.at = format!("{at}.{}", self.at);
        self
    }
}

/// What is not set, or is of a kind that a newer version knows.
fn unknown(at: &str) -> WireError {
    WireError::new(at, "is missing, or of a kind that is not known here")
}

impl From<&Limit> for message::Limit {
    fn from(limit: &Limit) -> Self {
        let Limit { id, key, algorithm, plans, shadow, failure_mode, body, openai_headers, told } = limit;
        Self {
            id: id.to_string(),
            key: Some(key.into()),
            algorithm: Some((*algorithm).into()),
            plans: plans.iter().map(message::Plan::from).collect(),
            shadow: *shadow,
            failure_mode: failure_mode.map_or(message::FailureMode::Unspecified, Into::into).into(),
            body: body.as_ref().map(message::Body::from),
            openai_headers: openai_headers.map_or(message::Counted::Unspecified, Into::into).into(),
            told: told.is_some(),
            told_burst: told.and_then(|told| match told {
                ToldAs::Window => None,
                ToldAs::LimitReq { burst } => Some(burst),
            }),
        }
    }
}

impl TryFrom<message::Limit> for Limit {
    type Error = WireError;

    fn try_from(message: message::Limit) -> Result<Self, WireError> {
        let failure_mode = message::FailureMode::try_from(message.failure_mode);
        let failure_mode = read_failure_mode(failure_mode.map_err(|_| unknown("failure_mode"))?);
        let openai_headers = message::Counted::try_from(message.openai_headers);
        let openai_headers = read_counted(openai_headers.map_err(|_| unknown("openai_headers"))?);
        let message::Limit { id, key, algorithm, plans, shadow, body, told, told_burst, .. } = message;
        if id.is_empty() {
            return Err(WireError::new("id", "is empty"));
        }
        let plan = |(index, plan)| {
            Plan::try_from(plan).map_err(|error: WireError| error.below(&format!("plans[{index}]")))
        };
        Ok(Self {
            id: id.into(),
            key: read_key(key, MAX_DEPTH)?,
            algorithm: read_algorithm(algorithm)?,
            plans: plans.into_iter().enumerate().map(plan).collect::<Result<_, _>>()?,
            shadow,
            failure_mode,
            body: body.map(read_body).transpose()?,
            openai_headers,
            told: told.then(|| told_burst.map_or(ToldAs::Window, |burst| ToldAs::LimitReq { burst })),
        })
    }
}

impl From<FailureMode> for message::FailureMode {
    fn from(mode: FailureMode) -> Self {
        match mode {
            FailureMode::Local => Self::Local,
            FailureMode::Open => Self::Open,
            FailureMode::Closed => Self::Closed,
        }
    }
}

fn read_failure_mode(mode: message::FailureMode) -> Option<FailureMode> {
    match mode {
        message::FailureMode::Unspecified => None,
        message::FailureMode::Local => Some(FailureMode::Local),
        message::FailureMode::Open => Some(FailureMode::Open),
        message::FailureMode::Closed => Some(FailureMode::Closed),
    }
}

impl From<Counted> for message::Counted {
    fn from(counted: Counted) -> Self {
        match counted {
            Counted::Requests => Self::Requests,
            Counted::Tokens => Self::Tokens,
        }
    }
}

fn read_counted(counted: message::Counted) -> Option<Counted> {
    match counted {
        message::Counted::Unspecified => None,
        message::Counted::Requests => Some(Counted::Requests),
        message::Counted::Tokens => Some(Counted::Tokens),
    }
}

impl From<&Body> for message::Body {
    fn from(body: &Body) -> Self {
        let kind = match body {
            Body::Text { content_type, text } => message::body::Kind::Text(message::Text {
                content_type: content_type.to_string(),
                text: text.to_string(),
            }),
            Body::Json => message::body::Kind::Json(()),
        };
        Self { kind: Some(kind) }
    }
}

fn read_body(body: message::Body) -> Result<Body, WireError> {
    Ok(match body.kind.ok_or_else(|| unknown("body"))? {
        message::body::Kind::Text(message::Text { content_type, text }) => {
            Body::Text { content_type: content_type.into(), text: text.into() }
        }
        message::body::Kind::Json(()) => Body::Json,
    })
}

impl From<&Key> for message::Key {
    fn from(key: &Key) -> Self {
        let by = match key {
            Key::ClientAddress => By::ClientAddress(()),
            Key::Header(name) => By::Header(name.to_string()),
            Key::Cookie(name) => By::Cookie(name.to_string()),
            Key::Query(name) => By::Query(name.to_string()),
            Key::Path => By::Path(()),
            Key::Method => By::Method(()),
            Key::Generic(name) => By::Generic(name.to_string()),
            Key::Jwt(of) => By::Jwt(message::Claim { issuer: of.issuer.clone(), claim: of.claim.clone() }),
            Key::Several(parts) => {
                By::Several(message::Keys { parts: parts.iter().map(Self::from).collect() })
            }
        };
        Self { by: Some(by) }
    }
}

fn read_key(key: Option<message::Key>, depth: usize) -> Result<Key, WireError> {
    Ok(match key.and_then(|key| key.by).ok_or_else(|| unknown("key"))? {
        By::ClientAddress(()) => Key::ClientAddress,
        By::Header(name) => Key::Header(name.into()),
        By::Cookie(name) => Key::Cookie(name.into()),
        By::Query(name) => Key::Query(name.into()),
        By::Path(()) => Key::Path,
        By::Method(()) => Key::Method,
        By::Generic(name) => Key::Generic(name.into()),
        By::Jwt(message::Claim { issuer, claim }) => Key::Jwt(TokenClaim { issuer, claim }.into()),
        By::Several(_) if depth == 0 => return Err(WireError::new("key", "is nested too deep")),
        By::Several(message::Keys { parts }) => {
            let part = |part| read_key(Some(part), depth - 1);
            Key::Several(parts.into_iter().map(part).collect::<Result<_, _>>()?)
        }
    })
}

impl From<&Plan> for message::Plan {
    fn from(plan: &Plan) -> Self {
        let Plan { name, matches, algorithm } = plan;
        let matches = match matches {
            KeyMatch::Prefix(prefix) => Matches::Prefix(prefix.to_string()),
            KeyMatch::Regex(pattern) => Matches::Regex(pattern.as_str().to_owned()),
            KeyMatch::Exact(keys) => Matches::Exact(keys.to_bytes()),
        };
        Self { name: name.to_string(), matches: Some(matches), algorithm: Some((*algorithm).into()) }
    }
}

impl TryFrom<message::Plan> for Plan {
    type Error = WireError;

    fn try_from(message: message::Plan) -> Result<Self, WireError> {
        let message::Plan { name, matches, algorithm } = message;
        let matches = match matches.ok_or_else(|| unknown("matches"))? {
            Matches::Prefix(prefix) => KeyMatch::Prefix(prefix.into()),
            Matches::Regex(text) => {
                KeyMatch::Regex(Pattern::new(&text).map_err(|error| WireError::new("regex", error))?)
            }
            Matches::Exact(digests) => KeyMatch::Exact(KeySet::of_bytes(&digests)),
        };
        Ok(Self { name: name.into(), matches, algorithm: read_algorithm(algorithm)? })
    }
}

impl From<Algorithm> for message::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::Gcra { requests, period_ms, burst } => {
                Kind::Gcra(message::Gcra { requests, period_ms, burst })
            }
            Algorithm::FixedWindow { requests, window_ms } => {
                Kind::FixedWindow(message::Window { requests, window_ms })
            }
            Algorithm::AlignedWindow { requests, window_ms } => {
                Kind::AlignedWindow(message::Window { requests, window_ms })
            }
            Algorithm::SlidingWindow { requests, window_ms } => {
                Kind::SlidingWindow(message::Window { requests, window_ms })
            }
            Algorithm::Calendar { requests, unit, time_zone } => Kind::Calendar(message::Calendar {
                requests,
                unit: match unit {
                    CalendarUnit::Day => message::calendar::Unit::Day,
                    CalendarUnit::Week => message::calendar::Unit::Week,
                    CalendarUnit::Month => message::calendar::Unit::Month,
                    CalendarUnit::Year => message::calendar::Unit::Year,
                }
                .into(),
                time_zone: time_zone.name().to_owned(),
            }),
            Algorithm::Concurrency { limit, lease_ms } => {
                Kind::Concurrency(message::Concurrency { limit, lease_ms })
            }
        };
        Self { kind: Some(kind) }
    }
}

fn read_algorithm(algorithm: Option<message::Algorithm>) -> Result<Algorithm, WireError> {
    let kind = algorithm.and_then(|algorithm| algorithm.kind).ok_or_else(|| unknown("algorithm"))?;
    Ok(match kind {
        Kind::Gcra(message::Gcra { requests, period_ms, burst }) => {
            Algorithm::Gcra { requests, period_ms, burst }
        }
        Kind::FixedWindow(message::Window { requests, window_ms }) => {
            Algorithm::FixedWindow { requests, window_ms }
        }
        Kind::AlignedWindow(message::Window { requests, window_ms }) => {
            Algorithm::AlignedWindow { requests, window_ms }
        }
        Kind::SlidingWindow(message::Window { requests, window_ms }) => {
            Algorithm::SlidingWindow { requests, window_ms }
        }
        Kind::Calendar(calendar) => {
            let unit = match calendar.unit() {
                message::calendar::Unit::Day => CalendarUnit::Day,
                message::calendar::Unit::Week => CalendarUnit::Week,
                message::calendar::Unit::Month => CalendarUnit::Month,
                message::calendar::Unit::Year => CalendarUnit::Year,
                message::calendar::Unit::Unspecified => return Err(unknown("algorithm.calendar.unit")),
            };
            let time_zone = TimeZone::parse(&calendar.time_zone)
                .map_err(|error| WireError::new("algorithm.calendar.time_zone", error.to_string()))?;
            Algorithm::Calendar { requests: calendar.requests, unit, time_zone }
        }
        Kind::Concurrency(message::Concurrency { limit, lease_ms }) => {
            Algorithm::Concurrency { limit, lease_ms }
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn key() -> impl Strategy<Value = Key> {
        let one = || {
            prop_oneof![
                Just(Key::ClientAddress),
                "[a-z-]{0,9}".prop_map(|name| Key::Header(name.into())),
                ".{0,9}".prop_map(|name| Key::Cookie(name.into())),
                ".{0,9}".prop_map(|name| Key::Query(name.into())),
                Just(Key::Path),
                Just(Key::Method),
                ".{0,9}".prop_map(|name| Key::Generic(name.into())),
                (".{0,9}", ".{0,9}")
                    .prop_map(|(issuer, claim)| Key::Jwt(TokenClaim { issuer, claim }.into())),
            ]
        };
        prop_oneof![3 => one(), 1 => prop::collection::vec(one(), 0..4).prop_map(Key::Several)]
    }

    fn algorithm() -> impl Strategy<Value = Algorithm> {
        let unit = prop::sample::select(vec![
            CalendarUnit::Day,
            CalendarUnit::Week,
            CalendarUnit::Month,
            CalendarUnit::Year,
        ]);
        let zone = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Argentina/Ushuaia"]);
        let calendar = (any::<u32>(), unit, zone).prop_map(|(requests, unit, zone)| {
            let time_zone = TimeZone::parse(zone).unwrap();
            Algorithm::Calendar { requests, unit, time_zone }
        });
        prop_oneof![
            any::<(u32, u64, u32)>().prop_map(|(requests, period_ms, burst)| Algorithm::Gcra {
                requests,
                period_ms,
                burst
            }),
            any::<(u32, u64)>()
                .prop_map(|(requests, window_ms)| Algorithm::FixedWindow { requests, window_ms }),
            any::<(u32, u64)>()
                .prop_map(|(requests, window_ms)| Algorithm::AlignedWindow { requests, window_ms }),
            any::<(u32, u64)>()
                .prop_map(|(requests, window_ms)| Algorithm::SlidingWindow { requests, window_ms }),
            calendar,
            any::<(u32, u64)>().prop_map(|(limit, lease_ms)| Algorithm::Concurrency { limit, lease_ms }),
        ]
    }

    fn plan() -> impl Strategy<Value = Plan> {
        let regex = prop::sample::select(vec!["gold|p.*", "", "[a-z]{3}"]);
        let matches = prop_oneof![
            ".{0,9}".prop_map(|prefix| KeyMatch::Prefix(prefix.into())),
            regex.prop_map(|text| KeyMatch::Regex(Pattern::new(text).unwrap())),
            prop::collection::vec(any::<[u8; 16]>(), 0..3)
                .prop_map(|keys| KeyMatch::Exact(keys.into_iter().collect())),
        ];
        (".{0,9}", matches, algorithm()).prop_map(|(name, matches, algorithm)| Plan {
            name: name.into(),
            matches,
            algorithm,
        })
    }

    fn limit() -> impl Strategy<Value = Limit> {
        let plans = prop::collection::vec(plan(), 0..3);
        let modes = vec![None, Some(FailureMode::Local), Some(FailureMode::Open), Some(FailureMode::Closed)];
        let text = (".{0,9}", ".{0,9}").prop_map(|(content_type, text)| Body::Text {
            content_type: content_type.into(),
            text: text.into(),
        });
        let body = prop::option::of(prop_oneof![text, Just(Body::Json)]);
        let counted = prop::sample::select(vec![None, Some(Counted::Requests), Some(Counted::Tokens)]);
        let modes = prop::sample::select(modes);
        let told = any::<Option<u32>>().prop_map(|burst| match burst {
            None => ToldAs::Window,
            Some(burst) => ToldAs::LimitReq { burst },
        });
        let flags = (any::<bool>(), prop::option::of(told));
        (".{1,30}", key(), algorithm(), plans, flags, modes, body, counted).prop_map(
            |(id, key, algorithm, plans, flags, failure_mode, body, openai_headers)| Limit {
                id: id.into(),
                key,
                algorithm,
                plans,
                shadow: flags.0,
                failure_mode,
                body,
                openai_headers,
                told: flags.1,
            },
        )
    }

    proptest! {
        #[test]
        fn every_limit_comes_back_as_it_was(limit in limit()) {
            let bytes = message::Limit::from(&limit).encode_to_vec();
            let read = message::Limit::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(Limit::try_from(read), Ok(limit));
        }

        #[test]
        fn any_bytes_are_a_limit_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = message::Limit::decode(bytes.as_slice())
                && let Ok(limit) = Limit::try_from(message)
            {
                prop_assert!(!limit.id.is_empty());
            }
        }
    }

    #[test]
    fn what_is_no_limit_says_where() {
        let good = || {
            let algorithm = Algorithm::FixedWindow { requests: 1, window_ms: 1 };
            let matches = KeyMatch::Prefix("p".into());
            let plan = Plan { name: "p".into(), matches, algorithm };
            let limit = Limit::new("a".into(), Key::ClientAddress, algorithm);
            message::Limit::from(&Limit { plans: vec![plan.clone(), plan], ..limit })
        };
        let calendar = |unit: i32, time_zone: &str| message::Algorithm {
            kind: Some(Kind::Calendar(message::Calendar { requests: 1, unit, time_zone: time_zone.into() })),
        };
        let plan = |change: fn(&mut message::Plan)| {
            let mut limit = good();
            change(&mut limit.plans[1]);
            limit
        };
        let nested =
            |key: message::Key| message::Key { by: Some(By::Several(message::Keys { parts: vec![key] })) };
        let deep = (0..6).fold(message::Key::from(&Key::Path), |key, _| nested(key));
        for (wrong, words) in [
            (message::Limit { id: String::new(), ..good() }, "id: is empty"),
            (message::Limit { key: None, ..good() }, "key: is missing"),
            (message::Limit { key: Some(message::Key { by: None }), ..good() }, "key: is missing"),
            (message::Limit { key: Some(deep), ..good() }, "key: is nested too deep"),
            (message::Limit { algorithm: None, ..good() }, "algorithm: is missing"),
            (message::Limit { algorithm: Some(calendar(9, "UTC")), ..good() }, "algorithm.calendar.unit: is"),
            (message::Limit { algorithm: Some(calendar(1, "Moon")), ..good() }, "time_zone: `Moon` is not"),
            (plan(|plan| plan.algorithm = None), "plans[1].algorithm: is missing"),
            (plan(|plan| plan.matches = None), "plans[1].matches: is missing"),
            (plan(|plan| plan.matches = Some(Matches::Regex("(".into()))), "plans[1].regex: "),
        ] {
            let error = Limit::try_from(wrong).unwrap_err().to_string();
            assert!(error.contains(words), "{error}: {words}");
        }
        assert!(Limit::try_from(good()).is_ok());
    }
}
