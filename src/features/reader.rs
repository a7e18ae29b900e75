//! Reads annotations, so that what is malformed is said and what nobody knows is noticed.

use std::collections::BTreeMap;

use super::{Annotation, protective};
use crate::values::{Findings, ObjectKey, Origin, boolean};

/// The prefix of ingress-nginx's annotations.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Reads one object's annotations, and the defaults that the ingress-nginx ConfigMap gives for some of them.
#[derive(Debug)]
pub struct Reader<'a> {
    object: &'a ObjectKey,
    annotations: Option<&'a BTreeMap<String, String>>,
    defaults: Option<(&'a ObjectKey, &'a BTreeMap<String, String>)>,
    findings: &'a mut Findings,
    refused: Option<Origin>,
}

impl<'a> Reader<'a> {
    /// A reader of an object's annotations, with the ConfigMap of defaults if there is one.
    pub fn new(
        object: &'a ObjectKey,
        annotations: Option<&'a BTreeMap<String, String>>,
        defaults: Option<(&'a ObjectKey, &'a BTreeMap<String, String>)>,
        findings: &'a mut Findings,
    ) -> Self {
        Self { object, annotations, defaults, findings, refused: None }
    }

    /// The annotation's value, by `parse`. A value that does not parse is said, and counts as not given.
    pub fn parse<T, E: std::fmt::Display>(
        &mut self,
        annotation: &Annotation,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<(T, Origin)> {
        let key = annotation.key();
        if let Some(text) = self.annotations.and_then(|annotations| annotations.get(&key)) {
            match parse(text) {
                Ok(value) => return Some((value, Origin::new(self.object, key))),
                Err(form) => {
                    let effect = if protective::MUST_BE_READ.contains(&annotation.name) {
                        self.refused.get_or_insert_with(|| Origin::new(self.object, key.as_str()));
                        protective::REFUSED
                    } else {
                        "the annotation has no effect"
                    };
                    let message = format!("{text:?} is not {form}; {effect}");
                    self.findings.error(self.object, key, "InvalidAnnotation", message);
                }
            }
        }
        self.config_map_value(annotation.config_map?, parse)
    }

    /// The value of a key of the ConfigMap that no annotation overrules, by `parse`. One that does not parse is said, and
    /// counts as not given.
    pub fn config_map<T, E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.config_map_value(name, parse).map(|(value, _)| value)
    }

    fn config_map_value<T, E: std::fmt::Display>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<(T, Origin)> {
        let (object, data) = self.defaults?;
        let text = data.get(name)?;
        match parse(text) {
            Ok(value) => Some((value, Origin::new(object, format!("data.{name}")))),
            Err(form) => {
                self.findings.error(
                    object,
                    format!("data.{name}"),
                    "InvalidConfiguration",
                    format!("{text:?} is not {form}; the key has no effect"),
                );
                None
            }
        }
    }

    /// The annotation, if any, that should keep somebody out and could not be read: the routes must not be served.
    pub fn refused(&mut self) -> Option<Origin> {
        self.refused.take()
    }

    /// Text as it stands.
    pub fn text(&mut self, annotation: &Annotation) -> Option<(String, Origin)> {
        self.parse(annotation, |text| {
            if text.chars().any(char::is_control) {
                Err("text without control characters")
            } else {
                Ok(text.to_owned())
            }
        })
    }

    /// A boolean.
    pub fn boolean(&mut self, annotation: &Annotation) -> Option<(bool, Origin)> {
        self.parse(annotation, boolean::parse)
    }

    /// A whole number that is not negative.
    pub fn number(&mut self, annotation: &Annotation) -> Option<(u32, Origin)> {
        self.parse(annotation, |text| {
            text.parse::<u32>().map_err(|_| format!("a whole number from 0 to {}", u32::MAX))
        })
    }

    /// Says something about an annotation.
    pub fn warn(&mut self, origin: &Origin, reason: &'static str, message: impl Into<String>) {
        self.findings.warning(&origin.object, &*origin.field, reason, message);
    }

    /// Says that an annotation has no effect or refuses traffic.
    pub fn error(&mut self, origin: &Origin, reason: &'static str, message: impl Into<String>) {
        self.findings.error(&origin.object, &*origin.field, reason, message);
    }
}
