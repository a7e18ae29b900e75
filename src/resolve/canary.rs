//! Canary Ingresses: which one takes part in a route, and the routes that come of it.
//!
//! ingress-nginx hangs a canary on the main *Service*, so it also acts on other hosts and paths of that Service, and
//! across namespaces. Here it acts on the host and path that it names, within its namespace.

use std::collections::{HashMap, HashSet};

use super::backend::{self, Upstream};
use super::draft::Draft;
use super::ingress::Location;
use super::source::Source;
use crate::features::canary::{Canary, HeaderRule};
use crate::model::route::{Variant, exact};
use crate::model::{Action, Destination, Match, Route};
use crate::values::matching::{HeaderMatch, NamedMatch, TextMatch};

/// A canary that takes part in a route.
#[derive(Debug)]
pub(crate) struct Alternative<'a> {
    pub(crate) canary: &'a Canary,
    pub(crate) backend: usize,
}

/// The paths of a host's canaries, by namespace and place; the oldest of each.
#[derive(Debug, Default)]
pub(crate) struct Canaries<'a>(HashMap<(&'a str, (&'a str, bool)), &'a Location<'a>>);

impl<'a> Canaries<'a> {
    /// Takes the canaries' locations, oldest first, and says which of them take part in nothing.
    pub(crate) fn new<'m>(
        draft: &mut Draft<'_>,
        mains: impl Iterator<Item = &'m Location<'m>>,
        canaries: &'a [Location<'a>],
    ) -> Self {
        if canaries.is_empty() {
            return Self::default();
        }
        // What has no Service is answered 404, whatever the canary.
        let mains = mains.filter(|main| main.service().is_some());
        let mains: HashSet<_> = mains.map(|main| (&*main.source.key.namespace, main.place())).collect();
        let mut this = Self::default();
        for canary in canaries {
            let key = canary.source.key;
            let place = (&*key.namespace, canary.place());
            if let Some(earlier) = this.0.get(&place) {
                let message = format!("{} is older and the canary of this path already", earlier.source.key);
                draft.findings.warning(key, &*canary.origin.field, "SecondCanary", message);
                continue;
            }
            if !mains.contains(&place) {
                let message = format!(
                    "no Ingress of namespace {} serves {} {} by a Service without being a canary, so this path has no effect",
                    key.namespace, draft.host, canary.path
                );
                draft.findings.warning(key, &*canary.origin.field, "CanaryWithoutMain", message);
            }
            this.0.insert(place, canary);
        }
        this
    }

    /// The oldest canary with the location's path, in the namespace of its Ingress, if it has somewhere to send requests.
    /// It is spoken to as the main Ingress says. It stands in for nothing: a main backend without endpoints has none.
    pub(crate) fn find(
        &self,
        draft: &mut Draft<'_>,
        main: &Location<'_>,
        main_backend: usize,
        upstream: Upstream,
    ) -> Option<Alternative<'a>> {
        let found = self.0.get(&(&*main.source.key.namespace, main.place()))?;
        let canary = found.source.policies.canary.as_ref()?;
        let backend = found.backend(draft, upstream, "the canary takes no requests")?;
        let serves = |backend| backend::has_endpoints(draft, backend);
        (backend != main_backend && serves(main_backend) && serves(backend))
            .then_some(Alternative { canary, backend })
    }
}

/// The routes of a location with a canary: header, then cookie, then weight.
pub(crate) fn routes(
    source: &Source<'_>,
    main: usize,
    alternative: &Alternative<'_>,
    base: &Match,
    route: impl Fn(Variant, Match, Action) -> Route,
) -> Vec<Route> {
    let Alternative { canary, backend } = alternative;
    debug_assert_ne!(main, *backend, "a canary of itself in {}", source.key);
    let to = |backend| Action::Forward(vec![Destination::only(backend)]);
    let mut routes = Vec::new();
    let mut by_header = |variant, name: &str, value, backend| {
        let mut matches = base.clone();
        matches.headers.push(HeaderMatch::new(name, value));
        routes.push(route(variant, matches, to(backend)));
    };
    match &canary.header {
        None => {}
        Some((name, HeaderRule::AlwaysNever)) => {
            by_header(Variant::CanaryByHeader, name, exact("always"), *backend);
            by_header(Variant::MainByHeader, name, exact("never"), main);
        }
        Some((name, HeaderRule::Value(value))) => {
            by_header(Variant::CanaryByHeader, name, exact(value), *backend)
        }
        Some((name, HeaderRule::Pattern(pattern))) => {
            let anywhere = TextMatch::Regex(format!("(?s).*(?:{pattern}).*"));
            by_header(Variant::CanaryByHeader, name, anywhere, *backend);
        }
        Some((name, HeaderRule::BrokenPattern)) => {
            by_header(Variant::MainByHeader, name, TextMatch::Present, main)
        }
    }
    if let Some(name) = &canary.cookie {
        for (variant, value, backend) in
            [(Variant::CanaryByCookie, "always", *backend), (Variant::MainByCookie, "never", main)]
        {
            let mut matches = base.clone();
            matches.cookies.push(NamedMatch { name: name.clone(), value: exact(value) });
            routes.push(route(variant, matches, to(backend)));
        }
    }
    let shares = [(main, canary.total - canary.weight), (*backend, canary.weight)];
    let shares = shares.into_iter().filter(|(_, weight)| *weight > 0);
    let destinations = shares.map(|(backend, weight)| Destination::weighted(backend, weight)).collect();
    routes.push(route(Variant::Main, base.clone(), Action::Forward(destinations)));
    routes
}
