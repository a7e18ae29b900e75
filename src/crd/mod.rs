//! Serde types of the custom resources that are read, only the fields that are honoured.

pub mod policy_jwt;
mod policy_key;
mod proto_names;
pub mod rate_limit_policy;
pub mod unreadable;
pub mod virtual_service;
