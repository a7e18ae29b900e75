//! Routes that are never reached because an earlier one asks for the same.

use std::collections::HashMap;

use crate::features::effects::Listeners;
use crate::model::{Match, Route};
use crate::values::Findings;

/// Says which of a host's routes are never reached. Equal matches only: that one match takes all that another would is
/// not looked for.
pub(crate) fn report(findings: &mut Findings, routes: &[Route]) {
    let mut earlier: HashMap<&Match, Vec<&Route>> = HashMap::with_capacity(routes.len());
    for route in routes {
        let same = earlier.entry(&route.matches).or_default();
        let declared = route.variant.is_declared();
        match same.iter().find(|first| covers(first.listeners, route.listeners)) {
            Some(first) if declared && first.origin != route.origin => {
                let message = format!("is never reached: {} asks for the same and comes first", first.origin);
                findings.warning(&route.origin.object, &*route.origin.field, "NeverReached", message);
            }
            Some(_) => {}
            None => same.push(route),
        }
    }
}

fn covers(listeners: Listeners, others: Listeners) -> bool {
    listeners.and(others) == Some(others)
}
