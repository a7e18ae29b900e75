//! The small values of the case format, each refused by name when it is none of the known forms.

use crate::manifest::ObjectRef;
use regex::Regex;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{Deserialize, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

/// Implements `Deserialize` through `FromStr`.
macro_rules! deserialize_from_str {
    ($($name:ty),* $(,)?) => {
        $(impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        })*
    };
}
deserialize_from_str!(Span, Pattern, Contained, Counted, ServiceName, BackendKey, ObjectRef, Network, Status);

/// A length of time: `2s`, `1500ms`, `1m`, `1h`, `1m30s`, `0.5s`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("`{text}` is not a duration such as 2s, 1500ms or 1m");
        let (mut rest, mut seconds) = (text, 0.0);
        if text.is_empty() {
            return Err(fail());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
            let number: f64 = rest[..digits].parse().map_err(|_| fail())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            seconds += number
                * match &rest[..unit] {
                    "ms" => 0.001,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return Err(fail()),
                };
            rest = &rest[unit..];
        }
        Ok(Span(Duration::from_secs_f64(seconds)))
    }
}

/// A text that must be equal, or, written between slashes, a regex that must be found.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    Text(String),
    Regex(Regex),
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')).filter(|inner| !inner.is_empty())
        {
            Some(inner) => {
                Regex::new(inner).map(Pattern::Regex).map_err(|error| format!("`{text}`: {error}"))
            }
            None => Ok(Pattern::Text(text.to_owned())),
        }
    }
}

impl Pattern {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Text(expected) => expected == text,
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Text(text) => write!(f, "{text:?}"),
            Pattern::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// As [`Pattern`], but the text needs only be contained.
#[derive(Clone, Debug)]
pub(crate) struct Contained(pub(crate) Pattern);

impl FromStr for Contained {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Contained)
    }
}

impl Contained {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Pattern::Text(expected) => text.contains(expected),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

/// A number or bounds of one: `10`, `>=10`, `<=12`, `8..12` (both ends included).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Counted {
    min: u64,
    max: u64,
}

impl Counted {
    pub(crate) fn holds(self, count: u64) -> bool {
        (self.min..=self.max).contains(&count)
    }
}

impl FromStr for Counted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.trim()
                .parse::<u64>()
                .map_err(|_| format!("`{text}` is none of 10, \">=10\", \"<=12\", \"8..12\""))
        };
        if let Some(min) = text.strip_prefix(">=") {
            return Ok(Counted { min: number(min)?, max: u64::MAX });
        }
        if let Some(max) = text.strip_prefix("<=") {
            return Ok(Counted { min: 0, max: number(max)? });
        }
        if let Some((min, max)) = text.split_once("..") {
            return Ok(Counted { min: number(min)?, max: number(max)? });
        }
        number(text).map(|exact| Counted { min: exact, max: exact })
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (min, max) if min == max => write!(f, "{min}"),
            (min, u64::MAX) => write!(f, ">={min}"),
            (0, max) => write!(f, "<={max}"),
            (min, max) => write!(f, "{min}..{max}"),
        }
    }
}

/// `namespace/name`, of a Service or a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains(['/', ':']) =>
            {
                Ok(ServiceName { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("`{text}` is not of the form namespace/name")),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `namespace/service:port`, or `namespace/service:port,name=http` for a named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BackendKey {
    pub(crate) service: ServiceName,
    pub(crate) port: u16,
    pub(crate) port_name: Option<String>,
}

impl FromStr for BackendKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || {
            format!("`{text}` is not of the form namespace/service:port or namespace/service:port,name=NAME")
        };
        let (address, port_name) = match text.split_once(',') {
            Some((address, option)) => {
                (address, Some(option.trim().strip_prefix("name=").ok_or_else(fail)?.to_owned()))
            }
            None => (text, None),
        };
        let (service, port) = address.split_once(':').ok_or_else(fail)?;
        Ok(BackendKey {
            service: service.parse().map_err(|_| fail())?,
            port: port.trim().parse().map_err(|_| fail())?,
            port_name,
        })
    }
}

impl fmt::Display for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

/// An address block: `127.0.0.2/32`, `2001:db8::/32`; an address alone is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    pub(crate) address: std::net::IpAddr,
    pub(crate) prefix: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("`{text}` is not a network such as 127.0.0.2/32");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| fail())?)),
            None => (text, None),
        };
        let address: std::net::IpAddr = address.parse().map_err(|_| fail())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let prefix: u8 = prefix.unwrap_or(widest);
        if prefix > widest { Err(fail()) } else { Ok(Network { address, prefix }) }
    }
}

/// A value, or a list of them.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        let deserializer: StrDeserializer<'_, E> = text.into_deserializer();
        T::deserialize(deserializer).map(|one| OneOrMany(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(items)).map(OneOrMany)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(entries)).map(|one| OneOrMany(vec![one]))
    }
}

/// An HTTP status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Status(pub(crate) u16);

impl FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(code @ 100..=599) => Ok(Status(code)),
            _ => Err(format!("`{text}` is not an HTTP status code")),
        }
    }
}
