//! What holds whatever happens, in whatever order.

mod certificates;
mod consistency;
mod events;
mod limits;
mod rejections;
mod secrets;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::{Compiler, Published};
use crate::descriptors;
use crate::settings::Settings;
use crate::store::Change;
use crate::translate::listener::listeners;
use crate::values::{Kind, ObjectKey};
use crate::xds::{Resource, Snapshot, TypeUrl, Version};
use certificates::certificate;
use events::{Event, Remains, batches, ratelimit, settings};

/// A compiler that has seen nothing. Most of its cost are the listeners, which no event touches.
fn compiler(settings: &Settings) -> Compiler {
    static LISTENERS: LazyLock<Vec<Arc<Resource>>> = LazyLock::new(|| {
        let settings = Settings { ratelimit: ratelimit(), ..Settings::default() };
        listeners(&settings).unwrap().into_iter().map(Arc::new).collect()
    });
    Compiler::with_listeners(settings.clone(), certificate(), LISTENERS.clone())
}

/// All at once.
fn from_scratch(settings: &Settings, remains: &Remains) -> Compiler {
    let mut compiler = compiler(settings);
    let mut changes = remains.changes();
    changes.push(Change::Ready);
    compiler.apply(changes);
    compiler
}

/// One batch after the other; every source is read in full after so many of them.
fn step_by_step(settings: &Settings, batches: &[Vec<Event>], ready_after: usize) -> Compiler {
    let mut compiler = compiler(settings);
    for (index, batch) in batches.iter().enumerate() {
        if index == ready_after {
            compiler.apply(vec![Change::Ready]);
        }
        compiler.apply(batch.iter().map(Event::change).collect());
    }
    compiler.apply(vec![Change::Ready]);
    compiler
}

fn versions(snapshot: &Snapshot) -> Vec<(TypeUrl, &str, Version)> {
    let of_type = |type_url| {
        snapshot.iter(type_url).map(move |resource| (type_url, &**resource.name(), resource.version()))
    };
    TypeUrl::ALL.into_iter().flat_map(of_type).collect()
}

fn assert_equal(one: &Published, other: &Published) {
    assert_eq!(versions(&one.snapshot), versions(&other.snapshot));
    assert_eq!(one.hosts, other.hosts);
    assert_eq!(one.findings, other.findings);
    assert_eq!(one.subjects, other.subjects);
    assert_eq!(one.limits, other.limits);
    for type_url in TypeUrl::ALL {
        for resource in one.snapshot.iter(type_url) {
            let same = other.snapshot.get(type_url, resource.name()).unwrap();
            assert_eq!(resource.requires(), same.requires(), "{resource:?}");
            assert_same(type_url, resource.name(), resource.body(), same.body());
        }
    }
}

/// Equal as Envoy reads them. Encoded maps have no order, so bytes are only the quick way to see it.
fn assert_same(type_url: TypeUrl, name: &str, one: &[u8], other: &[u8]) {
    if one != other {
        let json = |bytes| descriptors::to_json(type_url.as_str(), bytes).unwrap();
        assert_eq!(json(one), json(other), "{type_url} {name}");
    }
}

/// Whatever was seen of a version, in whichever sequence, is what it stands for.
fn assert_versions_are_true(snapshot: &Snapshot) {
    static SEEN: LazyLock<Mutex<HashMap<(TypeUrl, Version), Bytes>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for resource in TypeUrl::ALL.into_iter().flat_map(|type_url| snapshot.iter(type_url)) {
        let body = |resource: &Resource| Bytes::copy_from_slice(resource.body());
        let first = seen.entry((resource.type_url(), resource.version())).or_insert_with(|| body(resource));
        assert_same(resource.type_url(), resource.name(), first, resource.body());
    }
}

/// So many sequences, unless `PROPTEST_CASES` says another number.
fn cases(count: u32) -> Config {
    let config = Config::default();
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => Config { cases: count, ..config },
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn incremental_equals_from_scratch(
        settings in settings(),
        batches in batches(),
        ready_after in 0..4_usize,
    ) {
        let incremental = step_by_step(&settings, &batches, ready_after);
        let remains = Remains::after(batches.iter().flatten());
        let scratch = from_scratch(&settings, &remains);
        assert_equal(incremental.published(), scratch.published());
        assert_versions_are_true(&incremental.published().snapshot);
        assert_versions_are_true(&scratch.published().snapshot);
        consistency::check(scratch.published(), &settings);
    }
}

proptest! {
    #![proptest_config(cases(200))]

    /// Every snapshot on the way is whole, not only the last.
    #[test]
    fn every_snapshot_is_consistent(settings in settings(), batches in batches()) {
        let mut compiler = compiler(&settings);
        compiler.apply(vec![Change::Ready]);
        for batch in &batches {
            let published = compiler.apply(batch.iter().map(Event::change).collect());
            consistency::check(published, &settings);
        }
    }

    /// What is written again as it was is no change, be it one by one or as a new listing.
    #[test]
    fn a_no_op_changes_nothing(settings in settings(), batches in batches()) {
        let mut compiler = step_by_step(&settings, &batches, 0);
        let before = compiler.published().clone();
        let remains = Remains::after(batches.iter().flatten());
        for change in remains.changes() {
            compiler.apply(vec![change]);
            prop_assert!(compiler.take_events().is_empty());
        }
        let listed = Kind::ALL.map(|kind| remains.listed(kind));
        let after = compiler.apply(listed.into_iter().chain(remains.changes()).collect());
        prop_assert_eq!(after.snapshot.sequence(), before.snapshot.sequence());
        assert_equal(after, &before);
        prop_assert!(compiler.take_events().is_empty());
    }

    /// Nothing is left of what is gone.
    #[test]
    fn what_is_gone_is_gone(settings in settings(), batches in batches()) {
        let mut compiler = step_by_step(&settings, &batches, 0);
        let remains = Remains::after(batches.iter().flatten());
        let after = compiler.apply(remains.removal());
        assert_equal(after, from_scratch(&settings, &Remains::default()).published());
        assert!(after.hosts.is_empty() && after.limits.is_empty());
        let events = compiler.take_events();
        let gone = remains.removal().into_iter().filter(|change| matches!(change, Change::Deleted(_)));
        prop_assert_eq!(events.len(), gone.count());
        prop_assert!(events.iter().all(|(_, event)| *event == super::Event::Deleted));
    }

    /// What an earlier process knew is brought up to date, whatever it was.
    #[test]
    fn a_resumed_snapshot_is_brought_up_to_date(
        settings in settings(),
        before in batches(),
        now in batches(),
    ) {
        let earlier = from_scratch(&settings, &Remains::after(before.iter().flatten()));
        let mut resumed = compiler(&settings);
        resumed.resume(earlier.published().snapshot.clone());
        let remains = Remains::after(now.iter().flatten());
        let changes = remains.changes().into_iter().chain([Change::Ready]).collect();
        assert_equal(resumed.apply(changes), from_scratch(&settings, &remains).published());
    }

    /// A process that comes back to what it knew has nothing to send.
    #[test]
    fn a_restart_changes_nothing(settings in settings(), batches in batches()) {
        let remains = Remains::after(batches.iter().flatten());
        let earlier = from_scratch(&settings, &remains);
        let before = earlier.published().snapshot.clone();
        let mut resumed = compiler(&settings);
        resumed.resume(before.clone());
        let changes = remains.changes().into_iter().chain([Change::Ready]).collect();
        prop_assert_eq!(resumed.apply(changes).snapshot.sequence(), before.sequence());
    }
}
