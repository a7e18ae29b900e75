//! How the hits of one key are counted.

use std::borrow::Cow;

use super::{Algorithm, Limit, Plan};

impl Limit {
    /// The plan of keys of this value, if they have one.
    #[must_use]
    pub fn plan_for_value(&self, value: &str) -> Option<&Plan> {
        let mut digest = None;
        self.plans.iter().find(|plan| plan.matches.has(value, &mut digest))
    }

    /// The limit as it is for a key of this value; of several parts the first decides.
    #[must_use]
    pub fn for_value(&self, value: &str) -> Cow<'_, Self> {
        match self.plan_for_value(value) {
            None => Cow::Borrowed(self),
            Some(plan) => Cow::Owned(self.counted_by(plan.algorithm)),
        }
    }

    /// The same for all keys, and counted so.
    #[must_use]
    pub fn counted_by(&self, algorithm: Algorithm) -> Self {
        Self {
            shadow: self.shadow,
            failure_mode: self.failure_mode,
            body: self.body.clone(),
            openai_headers: self.openai_headers,
            ..Self::new(self.id.clone(), self.key.clone(), algorithm)
        }
    }
}
