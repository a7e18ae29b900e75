//! placeholder
use crate::values::ObjectKey;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
/// placeholder
#[derive(Clone, PartialEq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct RateLimitPolicy {
    /// metadata
    pub metadata: ObjectMeta,
}
impl RateLimitPolicy {
    /// target
    pub fn target(&self) -> Option<ObjectKey> {
        None
    }
}
