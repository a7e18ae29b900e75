//! Host names of routing objects, and the scope keys that stand for them.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A host as a scope key: lower case, without port.
///
/// | form | means |
/// |---|---|
/// | `a.example.com` | that host |
/// | `*.example.com` | hosts with exactly one label more (Ingress wildcards, and Istio's) |
/// | `**.example.com` | hosts with two labels more or further (Istio's wildcards only) |
/// | `*` | every host that nothing else names |
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(Arc<str>);

/// A host of an Istio object in full: a name without a dot is that of a Service in the object's own namespace.
pub fn full_name<'h>(host: &'h str, namespace: &str, cluster_domain: &str) -> Cow<'h, str> {
    if host.is_empty() || host == "*" || host.contains('.') {
        Cow::Borrowed(host)
    } else {
        Cow::Owned(format!("{host}.{namespace}.svc.{cluster_domain}"))
    }
}

impl HostName {
    /// The scope of rules without a host.
    pub fn any() -> Self {
        Self("*".into())
    }

    /// A host as Ingress rules write it: a DNS name, `*.` and a DNS name, or nothing for every host.
    ///
    /// # Errors
    /// One clause that names the accepted form.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lower = text.to_ascii_lowercase();
        if lower.is_empty() || lower == "*" {
            return Ok(Self::any());
        }
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() <= 253 && name.split('.').all(label) {
            Ok(Self(lower.into()))
        } else {
            Err("a host is a DNS name such as api.example.com, or a wildcard such as *.example.com")
        }
    }

    /// The key as Envoy sees it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same, for whoever keeps it.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }

    /// Whether it is not one name: such scopes are never on demand.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether it is the scope of every other host.
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// For `*.example.com`, the scope of deeper names that Istio's wildcards also cover.
    pub fn deep(&self) -> Option<Self> {
        self.0.strip_prefix("*.").map(|parent| Self(format!("**.{parent}").into()))
    }

    /// For a scope of deeper names, the wildcard as written.
    pub fn shallow(&self) -> Option<Self> {
        self.0.strip_prefix("**.").map(|parent| Self(format!("*.{parent}").into()))
    }

    /// The wildcard that covers this name with one label, if it is one name with a parent.
    pub fn wildcard_parent(&self) -> Option<Self> {
        if self.is_wildcard() {
            return None;
        }
        self.0.split_once('.').map(|(_, parent)| Self(format!("*.{parent}").into()))
    }

    /// The scopes that may serve this name, the first that is there does: its own, then the wildcards that cover it, the
    /// longest first, then that of every host.
    pub fn scopes(&self) -> impl Iterator<Item = Self> {
        let name = if self.is_wildcard() { "" } else { self.as_str() };
        let parents = name.match_indices('.').skip(1).map(|(dot, _)| &name[dot + 1..]);
        let deep = parents.map(|parent| Self(format!("**.{parent}").into()));
        std::iter::once(self.clone()).chain(self.wildcard_parent()).chain(deep).chain([Self::any()])
    }
}

/// So that maps are searched by a name in hand.
impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_lower_case_names_or_wildcards() {
        for (text, key) in [
            ("API.Example.com", "api.example.com"),
            ("*.Example.com", "*.example.com"),
            ("", "*"),
            ("*", "*"),
        ] {
            assert_eq!(HostName::parse(text).unwrap().as_str(), key);
        }
        for text in ["a..b", "a.*.b", "*foo.com", "a/b", "a:80", "-*.", &"a".repeat(64), "a b"] {
            assert!(HostName::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn short_names_are_services() {
        for (host, full) in [
            ("reviews", "reviews.ml.svc.cluster.local"),
            ("reviews.shop", "reviews.shop"),
            ("*.example.com", "*.example.com"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(full_name(host, "ml", "cluster.local"), full);
        }
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let host = HostName::parse("a.b.example.com").unwrap();
        assert_eq!(host.wildcard_parent().unwrap().as_str(), "*.b.example.com");
        assert_eq!(HostName::parse("*.b.com").unwrap().deep().unwrap().as_str(), "**.b.com");
        assert_eq!(HostName::any().deep(), None);
    }

    #[test]
    fn the_longest_wildcard_comes_first() {
        for (host, expected) in [
            ("a.b.example.com", "a.b.example.com *.b.example.com **.example.com **.com *"),
            ("example.com", "example.com *.com *"),
            ("com", "com *"),
        ] {
            let scopes: Vec<_> =
                HostName::parse(host).unwrap().scopes().map(|scope| scope.to_string()).collect();
            assert_eq!(scopes.join(" "), expected);
        }
    }
}
