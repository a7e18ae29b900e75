//! What a request counts for against a limit.

use std::sync::Arc;

use serde::Serialize;

/// What a request counts for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Cost {
    /// One hit.
    #[default]
    One,
    /// As many hits as this request header says; one without it. Whoever reads it sees to it that it is a number.
    Header(Arc<str>),
    /// As many hits as the answer says, when it has ended. A request is let through as long as there is anything left.
    Answer {
        /// What says it.
        told: Told,
        /// Hits taken when the request comes, and set off against what the answer says.
        reserve: u32,
    },
}

/// Where an answer says what it has cost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Told {
    /// A header of this name.
    Header(Arc<str>),
    /// This part of a JSON body, as names with dots between them.
    Json {
        /// The names.
        path: Arc<str>,
        /// Whether the events of an event stream are looked at too; the last that says it counts.
        events: bool,
    },
}

impl Cost {
    /// The most that one request counts for; Envoy takes no more.
    pub const MOST: u32 = 1_000_000_000;

    /// Whether it is one hit.
    #[must_use]
    pub fn is_one(&self) -> bool {
        *self == Self::One
    }
}
