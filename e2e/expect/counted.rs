//! Expectations over all answers of a step.

use super::{Judged, statistics};
use crate::case::step::Expect;
use crate::case::values::ServiceName;
use crate::echo::Records;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long copies of requests may take to arrive.
const MIRROR_PATIENCE: Duration = Duration::from_secs(5);

/// For how long no further copy may come before their number counts.
const MIRROR_QUIET: Duration = Duration::from_millis(300);

pub(super) fn check(expect: &Expect, judged: &[Judged<'_>]) -> Result<(), String> {
    check_statuses(expect, judged)?;
    if let Some(shares) = &expect.share {
        check_shares(shares, judged)?;
    }
    check_endpoints(expect, judged)
}

fn check_statuses(expect: &Expect, judged: &[Judged<'_>]) -> Result<(), String> {
    let mut counts: BTreeMap<u16, u64> = BTreeMap::new();
    for reply in judged.iter().filter_map(|one| one.answer.outcome.as_ref().ok()) {
        *counts.entry(reply.status).or_default() += 1;
    }
    for (status, expected) in expect.statuses.iter().flatten() {
        let seen = counts.get(&status.0).copied().unwrap_or_default();
        if !expected.holds(seen) {
            return Err(format!("statuses: expected {expected} × {}, seen {seen}", status.0));
        }
    }
    Ok(())
}

/// A backend that is not listed has share 0.
fn check_shares(shares: &BTreeMap<ServiceName, f64>, judged: &[Judged<'_>]) -> Result<(), String> {
    let mut counts: BTreeMap<&ServiceName, usize> = shares.keys().map(|name| (name, 0)).collect();
    for record in judged.iter().filter_map(|one| one.by.as_ref()) {
        *counts.entry(&record.service).or_default() += 1;
    }
    for (name, seen) in counts {
        let expected = shares.get(name).copied().unwrap_or_default();
        statistics::check(expected, seen, judged.len())
            .map_err(|problem| format!("share of {name}: {problem}"))?;
    }
    Ok(())
}

fn check_endpoints(expect: &Expect, judged: &[Judged<'_>]) -> Result<(), String> {
    let endpoints: BTreeSet<SocketAddr> =
        judged.iter().filter_map(|one| one.by.as_ref()).map(|record| record.endpoint).collect();
    let listed = || endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if let Some(expected) = expect.endpoints
        && !expected.holds(endpoints.len() as u64)
    {
        return Err(format!("endpoints: expected {expected}, seen {} ({})", endpoints.len(), listed()));
    }
    let from_none = judged.iter().filter(|one| one.by.is_none()).count();
    if expect.sticky == Some(true) && (endpoints.len() != 1 || from_none > 0) {
        return Err(format!("sticky: expected one endpoint, seen {} ({})", endpoints.len(), listed()));
    }
    Ok(())
}

/// Copies come after the answers, so this waits until as many as expected are there, and no more come.
pub(super) async fn check_mirrored(
    expect: &Expect,
    judged: &[Judged<'_>],
    records: &Records,
) -> Result<(), String> {
    let Some(shares) = &expect.mirrored else { return Ok(()) };
    let (started, mut last, mut quiet_since) = (Instant::now(), BTreeMap::new(), Instant::now());
    loop {
        let copies = copies(shares, judged, records);
        if copies != last {
            (last, quiet_since) = (copies, Instant::now());
        }
        let verdict = last.iter().try_for_each(|(name, seen)| {
            let checked = statistics::check(shares[*name], *seen, judged.len());
            checked.map_err(|problem| format!("mirrored to {name}: {problem}"))
        });
        let is_quiet = quiet_since.elapsed() >= MIRROR_QUIET;
        match verdict {
            Ok(()) if is_quiet => return Ok(()),
            Err(problem) if started.elapsed() >= MIRROR_PATIENCE => return Err(problem),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// How many requests each backend saw without being the one that answered.
fn copies<'a>(
    shares: &'a BTreeMap<ServiceName, f64>,
    judged: &[Judged<'_>],
    records: &Records,
) -> BTreeMap<&'a ServiceName, usize> {
    let mut counts: BTreeMap<&ServiceName, usize> = shares.keys().map(|name| (name, 0)).collect();
    for one in judged {
        let answered = one.by.as_ref().map(|record| &record.service);
        let saw: BTreeSet<ServiceName> =
            records.of(&one.answer.id).iter().map(|r| r.service.clone()).collect();
        for name in saw.iter().filter(|name| answered != Some(name)) {
            if let Some(count) = counts.get_mut(name) {
                *count += 1;
            }
        }
    }
    counts
}
