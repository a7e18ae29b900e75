//! Findings by who made them, and merged by object for whoever reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::values::{Finding, ObjectKey};

/// Findings are kept by output and object, since several hosts say the same of an Ingress that they share.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    by_maker: HashMap<String, Vec<Finding>>,
    /// How many makers say it.
    by_object: HashMap<ObjectKey, BTreeMap<Finding, usize>>,
    published: imbl::OrdMap<ObjectKey, Arc<[Finding]>>,
    changed: BTreeSet<ObjectKey>,
}

impl Ledger {
    /// What one maker has to say, instead of what it said before.
    pub(crate) fn set(&mut self, maker: &str, findings: Vec<Finding>) {
        if findings.is_empty() && !self.by_maker.contains_key(maker) {
            return;
        }
        for finding in &findings {
            self.changed.insert(finding.object.clone());
            *self.by_object.entry(finding.object.clone()).or_default().entry(finding.clone()).or_default() +=
                1;
        }
        let old = if findings.is_empty() {
            self.by_maker.remove(maker)
        } else {
            self.by_maker.insert(maker.to_owned(), findings)
        };
        for finding in old.into_iter().flatten() {
            self.changed.insert(finding.object.clone());
            let Some(said) = self.by_object.get_mut(&finding.object) else { continue };
            if let Some(count) = said.get_mut(&finding) {
                *count -= 1;
                if *count == 0 {
                    said.remove(&finding);
                }
            }
            if said.is_empty() {
                self.by_object.remove(&finding.object);
            }
        }
    }

    /// Everything, by object, and of which objects something else was said before.
    pub(crate) fn publish(&mut self) -> (imbl::OrdMap<ObjectKey, Arc<[Finding]>>, BTreeSet<ObjectKey>) {
        let changed = std::mem::take(&mut self.changed);
        for object in &changed {
            match self.by_object.get(object) {
                Some(said) => {
                    self.published.insert(object.clone(), said.keys().cloned().collect());
                }
                None => {
                    self.published.remove(object);
                }
            }
        }
        (self.published.clone(), changed)
    }
}
