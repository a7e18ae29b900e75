//! What is otherwise on hosts whose routes Envoy finds late.
//!
//! The routes of a wildcard host, and those of every other host, are found by a filter of the chain. The limit of request
//! bodies is a filter that was made before that, when there was no route. So on these hosts a body is as long as the
//! request declares it.

use std::collections::HashMap;
use std::sync::Arc;

use super::draft::Draft;
use crate::features::body_size::declared_above;
use crate::features::effects::{Answer, Effects, Guard, Listeners, Phase};
use crate::model::Route;

/// Gives the routes what can be had of what they ask for, if the draft's host is such a host.
pub(super) fn adapt(draft: &Draft<'_>, routes: &mut [Route]) {
    if !draft.host.is_wildcard() {
        return;
    }
    let mut adapted: HashMap<Arc<Effects>, Arc<Effects>> = HashMap::new();
    for route in routes {
        let known = adapted.entry(route.effects.clone());
        route.effects = known.or_insert_with_key(|effects| Arc::new(late(effects))).clone();
    }
}

fn late(effects: &Effects) -> Effects {
    let mut late = effects.clone();
    if let Some(most) = effects.max_request_bytes.as_ref().filter(|most| most.value > 0) {
        late.guards.push(Guard {
            phase: Phase::Body,
            listeners: Listeners::All,
            when: vec![declared_above(most.value)],
            answer: Answer::Direct { status: 413, body: Vec::new() },
            origin: most.origin.clone(),
        });
    }
    late
}
