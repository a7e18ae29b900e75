//! `mirror-target`: copies of requests go there too; their answers are thrown away.

use serde::Serialize;

use super::effects::{MirrorTarget, Setting};
use super::{Annotation, Effects, Feature, Field, Reader};
use crate::crd::virtual_service::{Destination, HttpRoute};
use crate::values::{Origin, Url};

const MIRROR_TARGET: Annotation = Annotation {
    name: "mirror-target",
    value: "http or https URL of a Service or another host, with `$request_uri` as path",
    default: "none",
    example: "http://shadow.ml.svc.cluster.local:8080$request_uri",
    text: "Every request is copied to this URL; the answer to the copy is thrown away and never waited for. \
           Under rewrite-target a copy has the path that the upstream sees.",
    config_map: None,
};

/// What stands for the request's own path and query.
const REQUEST_URI: &str = "$request_uri";

/// Copies of requests.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct Mirror {
    /// Where they go.
    pub target: MirrorTarget,
    /// The annotation.
    pub origin: Origin,
}

impl Feature for Mirror {
    const ANNOTATIONS: &'static [Annotation] = &[MIRROR_TARGET];

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let ((target, path), origin) = reader.parse(&MIRROR_TARGET, parse)?;
        if !path.is_empty() && path != REQUEST_URI {
            let message = format!(
                "a copy has the path that the upstream sees; {path:?} is not used (write {REQUEST_URI} in its place)"
            );
            reader.warn(&origin, "MirrorPathIgnored", message);
        }
        Some(Self { target, origin })
    }

    fn apply(&self, effects: &mut Effects) {
        effects.mirrors.push(Setting { value: self.target.clone(), origin: self.origin.clone() });
    }
}

/// A VirtualService's mirror whose destination has yet to be resolved.
#[derive(Clone, Debug)]
pub struct Copies<'a> {
    /// Where they go.
    pub destination: &'a Destination,
    /// Share of requests copied, in millionths; more than 0.
    pub millionths: u32,
    /// The field.
    pub origin: Origin,
}

/// VirtualService's `mirror` with `mirrorPercentage` (or the deprecated `mirrorPercent`), and `mirrors`. A share that
/// is not given is all of them; one that cannot be read is none.
pub fn from_rule<'a>(rule: &'a HttpRoute, field: &mut Field<'_>) -> Vec<Copies<'a>> {
    const ALL: u32 = 1_000_000;
    let mut copies = Vec::new();
    if let Some(destination) = &rule.mirror {
        if rule.mirrors.is_some() {
            field
                .child("mirror")
                .warning("MirrorTwice", "is given beside mirrors; requests are copied to all of them");
        }
        let share = match (&rule.mirror_percentage, rule.mirror_percent) {
            (Some(percentage), _) => field.child("mirrorPercentage").millionths(percentage),
            (None, Some(percent)) => field.child("mirrorPercent").whole_millionths(percent),
            (None, None) => Some(ALL),
        };
        let origin = field.child("mirror").origin();
        copies.extend(share.map(|millionths| Copies { destination, millionths, origin }));
    }
    let mut field = field.child("mirrors");
    for (index, mirror) in rule.mirrors.iter().flatten().enumerate() {
        let mut field = field.item(index);
        let share = match &mirror.percentage {
            Some(percentage) => field.child("percentage").millionths(percentage),
            None => Some(ALL),
        };
        let copy =
            |millionths| Copies { destination: &mirror.destination, millionths, origin: field.origin() };
        copies.extend(share.map(copy));
    }
    copies.retain(|copy| copy.millionths > 0);
    copies
}

/// Target and path of a URL.
fn parse(text: &str) -> Result<(MirrorTarget, String), &'static str> {
    let url = Url::parse(text).ok_or("a URL such as http://shadow.ml.svc.cluster.local:8080$request_uri")?;
    let host = url.host.to_ascii_lowercase();
    let target = MirrorTarget {
        port: url.port,
        tls: url.tls,
        // nginx's mirror location sends the target's own host.
        host_rewrite: Some(host.clone()),
        host,
        millionths: 1_000_000,
    };
    Ok((target, url.rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let (target, path) = parse("http://shadow.ml.svc:8080$request_uri").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), ("shadow.ml.svc", 8080, false));
        assert_eq!(path, REQUEST_URI);
        assert_eq!(parse("https://Example.com/x").unwrap().0.port, 443);
        let (target, _) = parse("http://shadow.example.com.:80$request_uri").unwrap();
        assert_eq!(
            (target.host.as_str(), target.host_rewrite.as_deref()),
            ("shadow.example.com", Some("shadow.example.com"))
        );
        for text in ["", "shadow:80", "ftp://a", "http://", "http://a:b", "http://a b", "http://$host"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
