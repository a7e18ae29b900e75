//! Parsed leaf types that everything else is made of. Knows nobody else in the crate.

pub mod boolean;
pub mod calendar;
pub mod certificate;
pub mod claim;
pub mod duration;
pub mod finding;
pub mod forbidden;
pub mod hash;
pub mod header;
pub mod host;
pub mod jwks;
pub mod key_set;
pub mod limit_key;
pub mod matching;
pub mod network;
pub mod object;
pub mod path;
pub mod pattern;
pub mod pem;
mod re2;
pub mod size;
pub(crate) mod text;
pub mod url;

pub use finding::{Finding, Findings, Severity};
pub use host::HostName;
pub use limit_key::{LimitKey, TokenClaim};
pub use network::Network;
pub use object::{Age, Kind, ObjectKey, Origin, Setting};
pub use url::Url;
