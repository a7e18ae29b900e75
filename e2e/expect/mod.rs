//! Expectations: what was seen, held against what a case says.

mod answer;
mod counted;
mod json;
mod statistics;
mod tls;

pub(crate) use json::check_json;

pub(crate) use statistics::within as share_holds;

use crate::case::step::Expect;
use crate::certs::Authority;
use crate::client::{Answer, Reply};
use crate::echo::{RECORD_HEADER, Record, Records};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What checks need beside the answers.
pub(crate) struct Context<'a> {
    pub(crate) records: &'a Records,
    pub(crate) authority: &'a Authority,
    pub(crate) is_https: bool,
    /// A websocket request wants 101 unless told otherwise.
    pub(crate) is_websocket: bool,
}

/// An answer, and which backend gave it.
pub(crate) struct Judged<'a> {
    pub(crate) answer: &'a Answer,
    /// None where Envoy answered by itself, or nobody did.
    pub(crate) by: Option<Arc<Record>>,
}

impl<'a> Judged<'a> {
    pub(crate) fn new(answer: &'a Answer, records: &Records) -> Judged<'a> {
        let by = answer.outcome.as_ref().ok().and_then(|reply| answered_by(reply, &records.of(&answer.id)));
        Judged { answer, by }
    }
}

/// Checks all answers of one try.
pub(crate) async fn check(expect: &Expect, answers: &[Answer], context: &Context<'_>) -> Result<(), String> {
    let judged: Vec<Judged<'_>> = answers.iter().map(|answer| Judged::new(answer, context.records)).collect();
    for (index, one) in judged.iter().enumerate() {
        check_each(expect, one, context)
            .map_err(|problem| {
                let place = if judged.len() > 1 {
                    format!("request {} of {}: ", index + 1, judged.len())
                } else {
                    String::new()
                };
                format!("{place}{problem}\n{}", describe(one))
            })
            .map_err(|problem| with_summary(problem, &judged))?;
    }
    counted::check(expect, &judged).map_err(|problem| with_summary(problem, &judged))?;
    counted::check_mirrored(expect, &judged, context.records)
        .await
        .map_err(|problem| with_summary(problem, &judged))
}

/// The expectations that every answer must meet by itself.
pub(crate) fn check_each(expect: &Expect, one: &Judged<'_>, context: &Context<'_>) -> Result<(), String> {
    answer::check(expect, one, context)?;
    match (&expect.tls, &one.answer.outcome) {
        (Some(tls), Ok(_)) => tls::check(tls, one.answer.handshake.as_deref(), context.authority),
        _ => Ok(()),
    }
}

/// The expectations over all answers of a stream of requests.
pub(crate) async fn check_together(
    expect: &Expect,
    answers: &[Answer],
    records: &Records,
) -> Result<(), String> {
    let judged: Vec<Judged<'_>> = answers.iter().map(|answer| Judged::new(answer, records)).collect();
    counted::check(expect, &judged)?;
    counted::check_mirrored(expect, &judged, records).await
}

/// Which of those that saw a request gave this answer.
fn answered_by(reply: &Reply, saw: &[Arc<Record>]) -> Option<Arc<Record>> {
    if let [number] = reply.header(RECORD_HEADER)[..]
        && let Some(record) = saw.iter().find(|record| record.number.to_string() == number)
    {
        return Some(record.clone());
    }
    // The mark may have been removed on the way, with all other headers; the JSON names the endpoint too.
    let body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    if let Some(endpoint) = body["endpoint"].as_str()
        && let Some(record) = saw.iter().find(|record| record.endpoint.to_string() == endpoint)
    {
        return Some(record.clone());
    }
    // An auth service puts no mark on its answers.
    match saw {
        [only] if only.is_auth && only.status == reply.status => Some(only.clone()),
        _ => None,
    }
}

/// One answer in words.
pub(crate) fn describe(one: &Judged<'_>) -> String {
    let by = one
        .by
        .as_ref()
        .map_or("no backend".to_owned(), |record| format!("{} at {}", record.service, record.endpoint));
    match &one.answer.outcome {
        Err(failure) => format!("  {}: {failure} after {:?}", one.answer.id, one.answer.duration),
        Ok(reply) => {
            let headers: String =
                reply.headers.iter().map(|(name, value)| format!("\n    {name}: {value}")).collect();
            let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(1000)]);
            let (id, status, duration) = (&one.answer.id, reply.status, one.answer.duration);
            format!("  {id}: {status} by {by} after {duration:?}{headers}\n    body: {body}")
        }
    }
}

fn with_summary(problem: String, judged: &[Judged<'_>]) -> String {
    if judged.len() < 2 {
        return problem;
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for one in judged {
        let what = match (&one.answer.outcome, &one.by) {
            (Err(failure), _) => failure.to_string(),
            (Ok(reply), Some(record)) => format!("{} by {}", reply.status, record.service),
            (Ok(reply), None) => format!("{} by no backend", reply.status),
        };
        *counts.entry(what).or_default() += 1;
    }
    let lines: String = counts.iter().map(|(what, count)| format!("\n    {count} × {what}")).collect();
    format!("{problem}\n  all {} answers:{lines}", judged.len())
}
