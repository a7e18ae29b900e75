//! What is said about an object: everything ignored, approximated or refused.

use std::fmt;

use indexmap::IndexSet;
use serde::Serialize;

use super::ObjectKey;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A part of the object has no effect, or traffic is refused because of it.
    Error,
    /// The object works, but not wholly as written.
    Warning,
    /// Worth knowing; nothing is lost.
    Info,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// One statement about one field of one object.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object it is about.
    pub object: ObjectKey,
    /// The field as a path, or the annotation's key; empty for the object as a whole.
    pub field: String,
    /// CamelCase, as in Kubernetes conditions and Events.
    pub reason: &'static str,
    /// One sentence: what is wrong, and the accepted form.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} ({})", self.severity, self.object, self.text(), self.reason)
    }
}

impl Finding {
    /// What is said of which field, where the object is known: `spec.rules[0].host: is not one`.
    pub fn text(&self) -> String {
        match self.field.as_str() {
            "" => self.message.clone(),
            field => format!("{field}: {}", self.message),
        }
    }
}

/// Collects findings of one run of a pure function, each once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings(IndexSet<Finding>);

impl Findings {
    /// Adds an error.
    pub fn error(
        &mut self,
        object: &ObjectKey,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.push(Severity::Error, object, field, reason, message);
    }

    /// Adds a warning.
    pub fn warning(
        &mut self,
        object: &ObjectKey,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.push(Severity::Warning, object, field, reason, message);
    }

    /// Adds an information.
    pub fn info(
        &mut self,
        object: &ObjectKey,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.push(Severity::Info, object, field, reason, message);
    }

    fn push(
        &mut self,
        severity: Severity,
        object: &ObjectKey,
        field: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        let finding = Finding {
            severity,
            object: object.clone(),
            field: field.into(),
            reason,
            message: message.into(),
        };
        self.0.insert(finding);
    }

    /// Adds those of another run.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The findings in the order they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Takes them out.
    pub fn into_vec(self) -> Vec<Finding> {
        self.0.into_iter().collect()
    }
}
