//! Limits as envoyproxy/ratelimit has them, so that its folder of YAML files can be taken as it is.
//!
//! ```text
//! folder ─read→ text ─yaml→ File ─rules→ Rules: a trie ─find→ Rule
//!  (follow)      (pure from here on)                (matching)
//! xDS ──────────→ message ─config→ File …
//! ```
//!
//! What is meant as it is there: the keys, the order in which descriptors match, the rule of depth, wildcards, shared
//! thresholds, `unlimited`, `replaces`, shadow and quota mode, overrides by the caller. Three things are meant otherwise
//! unless [`Compatible`] says so.

mod config;
pub mod dump;
pub mod follow;
mod matching;
mod names;
mod pattern;
mod rules;
pub(in crate::ratelimit) mod stats;
mod trie;
mod yaml;

pub use matching::Found;
pub use rules::{Rule, Rules};
pub(in crate::ratelimit) use rules::{counted, window, window_of};
pub use stats::NearLimitRatio;

use std::path::PathBuf;

/// What is done just as envoyproxy/ratelimit does it, where that lets through or refuses what it should not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compatible {
    /// Keys and values are joined by `_` where descriptors are looked up and counted: `(a, b_c)` and `(a_b, c)` are
    /// the same.
    pub keys: bool,
    /// Hits are charged even if they are refused, and even if another descriptor of the request is.
    pub charge: bool,
    /// What only asks (an addend of 0) is refused above the limit, and not at it.
    pub probe: bool,
}

/// How a folder is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What is done just as there.
    pub compatible: Compatible,
    /// Files of the same domain are merged, which is an error otherwise.
    pub merge_domains: bool,
}

/// Why a folder's limits are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A file or the folder cannot be read.
    #[error("cannot read {path}: {reason}", path = path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it is not.
        reason: String,
    },
    /// A file is not YAML of the accepted form.
    #[error("{file}: {reason}")]
    Form {
        /// The file's name below the folder.
        file: String,
        /// The place, and what stands there instead of what.
        reason: String,
    },
    /// A descriptor, or the file as a whole, says what cannot be.
    #[error("{file}: {at}: {reason}")]
    Meaning {
        /// The file's name below the folder, or the resource's.
        file: String,
        /// The place, such as `descriptors[0].descriptors[2].rate_limit.unit`.
        at: String,
        /// What is wrong, and what is accepted.
        reason: String,
    },
}

#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;
