//! What the echo servers of a case saw, by request id.

use crate::case::values::ServiceName;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One request as a backend saw it.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Unique in the case.
    pub(crate) number: u64,
    pub(crate) service: ServiceName,
    pub(crate) endpoint: SocketAddr,
    /// Whether the backend acts as an auth service.
    pub(crate) is_auth: bool,
    /// What it answered.
    pub(crate) status: u16,
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) host: String,
    /// Lower-case names, in the order of arrival.
    pub(crate) headers: Vec<(String, String)>,
    /// Up to 64 KiB of it.
    pub(crate) body: String,
    pub(crate) body_size: u64,
}

/// The records of a case.
#[derive(Default)]
pub(crate) struct Records {
    by_id: Mutex<HashMap<String, Vec<Arc<Record>>>>,
    count: AtomicU64,
}

impl Records {
    pub(crate) fn next_number(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, id: &str, record: Record) {
        let mut by_id = self.by_id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        by_id.entry(id.to_owned()).or_default().push(Arc::new(record));
    }

    /// Every backend that saw this request, in order.
    pub(crate) fn of(&self, id: &str) -> Vec<Arc<Record>> {
        let by_id = self.by_id.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        by_id.get(id).cloned().unwrap_or_default()
    }

    /// Forgets a request that nobody will ask about any more.
    pub(crate) fn forget(&self, id: &str) {
        self.by_id.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(id);
    }
}
