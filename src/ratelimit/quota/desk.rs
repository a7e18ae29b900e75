//! What is asked of single keys.

use std::borrow::Cow;
use std::time::{Duration, Instant, UNIX_EPOCH};

use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;

use super::access::Caller;
use super::v1::{Quota, Subject};
use crate::clock;
use crate::model::limit::{Algorithm, KEY_ENTRY, Key, Limit, told_rate};
use crate::ratelimit::counters::{Ask, Counters, Hits, Outcome, Role, Unavailable};
use crate::ratelimit::fingerprint::Fingerprint;
use crate::ratelimit::report;
use crate::ratelimit::service::RateLimit;
use crate::ratelimit::top::Hot;

/// More than any counter holds, and what every store can count.
const ALL: u64 = u32::MAX as u64;
/// The most that can be granted at once.
const MOST_HITS: u64 = 1_000_000_000;
const FEW: u32 = 100;
const MOST_KEYS: u32 = 1_000;

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// There is no such limit or key.
    NotFound(String),
    /// That cannot be asked.
    Invalid(String),
    /// There are too many grants.
    Full(String),
    /// The counters are not there.
    Unavailable(String),
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

type Answer<T> = Result<T, Problem>;

/// A key of a limit.
struct Found {
    /// As it is for this key.
    limit: Limit,
    plan: String,
    key: Vec<Entry>,
    hot: Hot,
    /// Of the limit and the key, as people are shown them.
    shown: (String, Vec<String>),
}

impl Found {
    fn ask(&self, hits: Hits) -> Ask<'_> {
        Ask { limit: &self.limit, key: &self.key, hits, role: Role::Shadow }
    }
}

/// Does what is asked, and says so in the log of audits.
pub(super) struct Desk<C>(pub(super) RateLimit<C>);

impl<C: Counters> Desk<C> {
    /// The keys with the most hits, of one limit if it is named.
    pub(super) async fn list(&self, caller: &Caller, limit: &str, max: u32) -> Answer<Vec<Quota>> {
        let max = if max == 0 { FEW } else { max.min(MOST_KEYS) };
        let limits = self.0.limits();
        let mut quotas = Vec::new();
        for hot in self.0.decisions().top.all() {
            let (name, _) = report::shown(&limits, &hot);
            if (limit.is_empty() || name == limit || *hot.limit == *limit)
                && let Ok(found) = self.of_hot(hot)
            {
                quotas.push(self.look(&found).await?);
            }
            if quotas.len() == max as usize {
                break;
            }
        }
        audit(caller, "list", None, 0);
        Ok(quotas)
    }

    pub(super) async fn get(&self, caller: &Caller, subject: &Subject) -> Answer<Quota> {
        let quota = self.look(&self.find(subject)?).await?;
        audit(caller, "get", Some(&quota), 0);
        Ok(quota)
    }

    pub(super) async fn reset(&self, caller: &Caller, subject: &Subject) -> Answer<Quota> {
        let found = self.find(subject)?;
        self.count(&found, Hits::Return(ALL)).await?;
        let quota = self.look(&found).await?;
        audit(caller, "reset", Some(&quota), 0);
        Ok(quota)
    }

    pub(super) async fn grant(&self, caller: &Caller, subject: &Subject, hits: u64) -> Answer<Quota> {
        if !(1..=MOST_HITS).contains(&hits) {
            return Err(Problem::Invalid(format!("hits: {hits} is not from 1 to {MOST_HITS}")));
        }
        let found = self.find(subject)?;
        let outcome = self.count(&found, Hits::Take(0)).await?;
        let unix_ms = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let unix_ms = u64::try_from(unix_ms).unwrap_or(u64::MAX);
        let Some(lasts_ms) = rest_of_window(&found.limit.algorithm, outcome.reset_ms, unix_ms) else {
            let problem =
                "counts requests under way, which cannot be granted; reset it if it counts some that ended";
            return Err(Problem::Invalid(format!("{} {problem}", found.shown.0)));
        };
        let lasts = Duration::from_millis(lasts_ms);
        if !self.add(&found, hits, lasts).await? {
            return Err(Problem::Full("too many keys have a grant; wait until some have ended".to_owned()));
        }
        let quota = self.look(&found).await?;
        audit(caller, "grant", Some(&quota), hits);
        Ok(quota)
    }

    /// Keeps a grant where all replicas that count together know of it. Whether there was room.
    async fn add(&self, found: &Found, hits: u64, lasts: Duration) -> Answer<bool> {
        match self.0.counters().shared() {
            Some(shared) => Ok(shared.grant(&found.limit, &found.key, hits, lasts).await?),
            None => Ok(self.0.grants().add(found.hot.fingerprint, hits, lasts, Instant::now())),
        }
    }

    /// What was granted, and how much of that the counters do not know of.
    async fn granted(&self, found: &Found) -> Answer<(u64, u64)> {
        match self.0.counters().shared() {
            Some(shared) => Ok((shared.granted(&found.limit, &found.key).await?, 0)),
            None => {
                let granted = self.0.grants().left(found.hot.fingerprint, Instant::now());
                Ok((granted, granted))
            }
        }
    }

    async fn look(&self, found: &Found) -> Answer<Quota> {
        let (granted, beside) = self.granted(found).await?;
        let outcome = self.count(found, Hits::Take(0)).await?;
        let (requests, window_ms) = found.limit.algorithm.quota();
        let (limit, key) = found.shown.clone();
        Ok(Quota {
            limit,
            key,
            fingerprint: found.hot.fingerprint.to_string(),
            plan: found.plan.clone(),
            requests,
            window_ms,
            remaining: outcome.remaining.saturating_add(beside),
            granted,
            reset_ms: outcome.reset_ms,
            hits: found.hot.hits,
            denied: found.hot.denied,
        })
    }

    async fn count(&self, found: &Found, hits: Hits) -> Answer<Outcome> {
        let outcomes = self.0.counters().decide(&[found.ask(hits)]).await;
        outcomes?
            .into_iter()
            .next()
            .ok_or_else(|| Problem::Unavailable("no answer of the counters".to_owned()))
    }

    fn find(&self, subject: &Subject) -> Answer<Found> {
        let Subject { limit, key, domain, entries, fingerprint, rate } = subject;
        let found = match (limit.is_empty(), domain.is_empty(), fingerprint.is_empty()) {
            (true, true, false) if key.is_empty() && entries.is_empty() => self.by_fingerprint(fingerprint),
            (true, false, true) if key.is_empty() => self.by_entries(domain, entries),
            (false, true, true) if entries.is_empty() => self.by_limit(limit, key),
            _ => Err(Problem::Invalid(
                "expected one of limit (with key), domain (with entries) and fingerprint".to_owned(),
            )),
        }?;
        if rate.is_empty() { Ok(found) } else { self.at_rate(found, rate) }
    }

    /// The same key by a rate that is told, whichever was told last.
    fn at_rate(&self, found: Found, rate: &str) -> Answer<Found> {
        let limits = self.0.limits();
        let Some(rate) = told_rate(&format!("={rate}")) else {
            let problem = "expected hits a second, minute, hour or day, such as 100r/m (r/s, r/h, r/d)";
            return Err(Problem::Invalid(format!("rate: {problem}; got {rate}")));
        };
        let Some(limit) = limits.get(&found.limit.id).and_then(|limit| limit.told(rate)) else {
            let problem = "counts by no rate of an answer (authHeader)";
            return Err(Problem::Invalid(format!("rate: {} {problem}", found.shown.0)));
        };
        Ok(Found { limit, plan: String::new(), ..found })
    }

    fn by_fingerprint(&self, text: &str) -> Answer<Found> {
        let fingerprint: Fingerprint =
            text.parse().map_err(|problem| Problem::Invalid(format!("fingerprint: {problem}")))?;
        let hot = self.0.decisions().top.get(fingerprint);
        let hot = hot.ok_or_else(|| {
            let why = "is not among the keys with the most hits any more; name its limit and key";
            Problem::NotFound(format!("{fingerprint} {why}"))
        })?;
        self.of_hot(hot)
    }

    fn of_hot(&self, hot: Hot) -> Answer<Found> {
        let Some(key) = hot.key.as_deref() else {
            return Err(Problem::NotFound("the key is too long to be remembered; name it".to_owned()));
        };
        let key = key.to_vec();
        let limit = match hot.limit.split_once('\n') {
            None => self.0.limits().get(&hot.limit).cloned(),
            Some(_) => {
                let rules = self.0.rules();
                rules.iter().find(|rule| rule.limit.id == hot.limit).map(|rule| rule.limit.clone())
            }
        };
        let gone = || Problem::NotFound(format!("the limit {} is no longer in force", hot.limit));
        Ok(self.found(&limit.ok_or_else(gone)?, key))
    }

    fn by_entries(&self, domain: &str, entries: &[super::v1::Entry]) -> Answer<Found> {
        let entry = |entry: &super::v1::Entry| Entry { key: entry.key.clone(), value: entry.value.clone() };
        let entries: Vec<Entry> = entries.iter().map(entry).collect();
        let rules = self.0.rules();
        if !rules.has_domain(domain) {
            return Err(Problem::NotFound(format!("there is no domain {domain}")));
        }
        match rules.find(domain, &entries) {
            Some(found) if found.rule.unlimited => {
                Err(Problem::Invalid(format!("{} is unlimited", found.rule.path)))
            }
            Some(found) => Ok(self.found(&found.rule.limit, found.key.into_owned())),
            None => Err(Problem::NotFound(format!("no rule of the domain {domain} is for these entries"))),
        }
    }

    fn by_limit(&self, id: &str, values: &[String]) -> Answer<Found> {
        let limits = self.0.limits();
        let limit = limits.get(id).ok_or_else(|| Problem::NotFound(format!("there is no limit {id}")))?;
        let named: Vec<&Key> =
            limit.key.parts().iter().filter(|part| !matches!(part, Key::Generic(_))).collect();
        if named.len() != values.len() {
            let expected: Vec<String> = named.iter().map(ToString::to_string).collect();
            let expected = if expected.is_empty() { "none".to_owned() } else { expected.join(", ") };
            let problem = format!("key: expected a value for each of: {expected}; got {}", values.len());
            return Err(Problem::Invalid(problem));
        }
        let mut values = values.iter();
        let mut value = || values.next().cloned().unwrap_or_default();
        let entry = |part: &Key| match part {
            Key::Generic(name) => Entry { key: KEY_ENTRY.to_owned(), value: name.to_string() },
            Key::ClientAddress => Entry { key: "remote_address".to_owned(), value: value() },
            _ => Entry { key: KEY_ENTRY.to_owned(), value: value() },
        };
        let key = limit.key.parts().iter().map(entry).collect();
        Ok(self.found(limit, key))
    }

    fn found(&self, limit: &Limit, key: Vec<Entry>) -> Found {
        let top = &self.0.decisions().top;
        let fingerprint = top.fingerprint(&limit.id, &key);
        let unknown = || Hot {
            fingerprint,
            limit: limit.id.clone(),
            key: Some(key.clone().into()),
            hits: 0,
            at_most_over: 0,
            denied: 0,
            told: None,
        };
        let hot = top.get(fingerprint).unwrap_or_else(unknown);
        let value = key.first().map_or("", |entry| entry.value.as_str());
        let plan = || limit.plan_for_value(value).map_or_else(String::new, |plan| plan.name.to_string());
        let (plan, as_it_is) = match hot.told.filter(|_| limit.told.is_some()) {
            Some(rate) => (String::new(), Cow::Owned(limit.counted_by(rate))),
            None => (plan(), limit.for_value(value)),
        };
        let shown = report::shown(&self.0.limits(), &Hot { key: Some(key.clone().into()), ..hot.clone() });
        Found { plan, limit: as_it_is.into_owned(), key, hot, shown }
    }
}

/// Milliseconds that the present window still lasts; none where there is no window. `reset_ms` is what the counter says
/// of its own.
fn rest_of_window(algorithm: &Algorithm, reset_ms: u64, unix_ms: u64) -> Option<u64> {
    Some(match *algorithm {
        Algorithm::FixedWindow { window_ms, .. } if reset_ms == 0 => window_ms,
        Algorithm::FixedWindow { .. } => reset_ms,
        Algorithm::AlignedWindow { window_ms, .. } => window_ms - unix_ms % window_ms.max(1),
        Algorithm::Calendar { unit, time_zone, .. } => {
            time_zone.period(unit, unix_ms).end.saturating_sub(unix_ms)
        }
        // Any window that this moment lies in.
        Algorithm::SlidingWindow { window_ms, .. } => window_ms,
        // Until the bucket is as empty as it gets.
        Algorithm::Gcra { requests, period_ms, burst } => {
            let drains = (u64::from(burst) + 1).saturating_mul(period_ms) / u64::from(requests.max(1));
            drains.max(period_ms)
        }
        Algorithm::Concurrency { .. } => return None,
    })
}

/// Who did what, for whoever has to know later. No credential is in it.
fn audit(caller: &Caller, action: &str, quota: Option<&Quota>, hits: u64) {
    let peer = caller.peer.map(|peer| peer.to_string()).unwrap_or_default();
    let who = &*caller.name;
    match quota {
        None => tracing::info!(target: "audit", who, peer, action, "quota"),
        Some(quota) => {
            let Quota { limit, fingerprint, remaining, .. } = quota;
            let key = quota.key.join(" ");
            tracing::info!(
                target: "audit", who, peer, action, limit, key, fingerprint, hits, remaining, "quota"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::calendar::{CalendarUnit, TimeZone};

    #[test]
    fn what_is_left_of_a_window() {
        let time_zone = TimeZone::parse("UTC").unwrap();
        const DAY_MS: u64 = 86_400_000;
        for (algorithm, reset_ms, expected) in [
            (Algorithm::FixedWindow { requests: 1, window_ms: 50 }, 20, Some(20)),
            (Algorithm::FixedWindow { requests: 1, window_ms: 50 }, 0, Some(50)),
            (Algorithm::AlignedWindow { requests: 1, window_ms: 50 }, 0, Some(40)),
            (Algorithm::SlidingWindow { requests: 1, window_ms: 50 }, 20, Some(50)),
            (Algorithm::Calendar { requests: 1, unit: CalendarUnit::Day, time_zone }, 0, Some(DAY_MS - 10)),
            (Algorithm::Gcra { requests: 2, period_ms: 10, burst: 0 }, 0, Some(10)),
            (Algorithm::Gcra { requests: 2, period_ms: 10, burst: 9 }, 0, Some(50)),
            (Algorithm::Concurrency { limit: 1, lease_ms: 50 }, 0, None),
        ] {
            assert_eq!(rest_of_window(&algorithm, reset_ms, 5 * DAY_MS + 10), expected, "{algorithm:?}");
        }
    }
}
