//! The one place that reads the wall clock. Servers and the compile task call it and pass the time on.

use std::time::SystemTime;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the edge")]
pub fn now() -> SystemTime {
    SystemTime::now()
}
