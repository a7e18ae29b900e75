//! What all objects have.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as pb;

use super::{list, map, nonempty, texts};
use crate::source::read::{NOISE, ReadError};

/// Metadata without its bookkeeping.
pub(super) fn metadata(it: Option<pb::ObjectMeta>) -> Result<ObjectMeta, ReadError> {
    let it = it.unwrap_or_default();
    Ok(ObjectMeta {
        annotations: quiet(it.annotations),
        creation_timestamp: time(it.creation_timestamp, "metadata.creationTimestamp")?,
        deletion_grace_period_seconds: it.deletion_grace_period_seconds,
        deletion_timestamp: time(it.deletion_timestamp, "metadata.deletionTimestamp")?,
        finalizers: texts(it.finalizers),
        generate_name: nonempty(it.generate_name),
        generation: nonempty(it.generation),
        labels: quiet(it.labels),
        managed_fields: None,
        name: nonempty(it.name),
        namespace: nonempty(it.namespace),
        owner_references: list(it.owner_references, owner),
        resource_version: None,
        self_link: None,
        uid: nonempty(it.uid),
    })
}

/// Without noise. What held nothing else is empty, not absent, as when it is read from JSON.
fn quiet(texts: BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    let mut texts = map(texts)?;
    for key in NOISE {
        texts.remove(*key);
    }
    Some(texts)
}

fn owner(it: pb::OwnerReference) -> OwnerReference {
    OwnerReference {
        api_version: it.api_version.unwrap_or_default(),
        block_owner_deletion: it.block_owner_deletion,
        controller: it.controller,
        kind: it.kind.unwrap_or_default(),
        name: it.name.unwrap_or_default(),
        uid: it.uid.unwrap_or_default(),
    }
}

pub(super) fn condition(it: pb::Condition) -> Result<Condition, ReadError> {
    let changed = time(it.last_transition_time, "status.conditions")?;
    Ok(Condition {
        last_transition_time: changed.unwrap_or(Time(Timestamp::UNIX_EPOCH)),
        message: it.message.unwrap_or_default(),
        observed_generation: nonempty(it.observed_generation),
        reason: it.reason.unwrap_or_default(),
        status: it.status.unwrap_or_default(),
        type_: it.r#type.unwrap_or_default(),
    })
}

/// A time in whole seconds, as JSON has them. Go says no time by an empty message.
fn time(it: Option<pb::Time>, field: &str) -> Result<Option<Time>, ReadError> {
    let Some(seconds) = it.filter(|it| *it != pb::Time::default()) else {
        return Ok(None);
    };
    let seconds = seconds.seconds.unwrap_or_default();
    match Timestamp::from_second(seconds) {
        Ok(time) => Ok(Some(Time(time))),
        Err(error) => Err(ReadError { field: field.into(), message: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let read = |it| time(it, "f").map(|time| time.map(|time| time.0.as_second()));
        let said = |seconds, nanos| Some(pb::Time { seconds, nanos });
        for (it, expected) in [
            (None, None),
            (said(None, None), None),
            (said(Some(0), Some(0)), Some(0)),
            (said(Some(1_800_000_000), Some(5)), Some(1_800_000_000)),
        ] {
            assert_eq!(read(it), Ok(expected), "{it:?}");
        }
        assert_eq!(read(said(Some(i64::MAX), None)).unwrap_err().field, "f");
    }
}
