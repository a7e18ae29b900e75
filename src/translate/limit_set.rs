//! A limit to what a rate limit service of ours is sent.

use std::sync::Arc;

use super::version;
use crate::messages::ratelimit::LimitSet;
use crate::model::limit::Limit;
use crate::xds::{Resource, TypeUrl};

/// A set with this limit alone, under the limit's id.
pub fn limit_set(limit: &Limit) -> Resource {
    let message = LimitSet { limits: vec![limit.into()] };
    Resource::new(TypeUrl::LimitSet, Arc::clone(&limit.id), version(limit), &message)
}
