//! Rates that come with a request: whoever let it in said how much its key may.

use serde::{Deserialize, Serialize};

use super::{Algorithm, Limit};

/// The name of a descriptor's last entry, whose value says the rate behind `=`, so that there is one where nobody said any.
/// It is no part of the key.
pub const TOLD_ENTRY: &str = "told";

/// The rate that the value of an entry says, in nginx's form (`100r/m`) with hours and days beside seconds and minutes. None
/// where it is of another form: the limit's own numbers count.
#[must_use]
pub fn told_rate(value: &str) -> Option<ToldRate> {
    const DIGITS: usize = 9;
    let (requests, unit) = value.strip_prefix('=')?.split_once("r/")?;
    let window_ms = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let is_number = (1..=DIGITS).contains(&requests.len()) && requests.bytes().all(|b| b.is_ascii_digit());
    Some(ToldRate { requests: requests.parse().ok().filter(|_| is_number)?, window_ms })
}

/// So many requests in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldRate {
    /// Requests.
    pub requests: u32,
    /// In so many milliseconds.
    pub window_ms: u64,
}

/// How such a rate is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ToldAs {
    /// In windows.
    Window,
    /// As nginx's `limit_req` counts it.
    LimitReq {
        /// Hits that may come at once on top of the first.
        burst: u32,
    },
}

impl ToldAs {
    fn algorithm(self, ToldRate { requests, window_ms }: ToldRate) -> Algorithm {
        match self {
            // A bucket of a rate of none lets one through.
            Self::LimitReq { burst } if requests > 0 => Algorithm::limit_req(requests, window_ms, burst),
            Self::LimitReq { .. } | Self::Window => Algorithm::window(requests, window_ms),
        }
    }
}

impl Limit {
    /// The limit with this rate for all keys, if it takes rates that are told.
    #[must_use]
    pub fn told(&self, rate: ToldRate) -> Option<Self> {
        self.told.map(|told| self.counted_by(told.algorithm(rate)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (value, quota) in [
            ("=100r/m", (100, 60_000)),
            ("=10r/s", (10, 1_000)),
            ("=0r/h", (0, 3_600_000)),
            ("=999999999r/d", (999_999_999, 86_400_000)),
        ] {
            assert_eq!(told_rate(value).map(|rate| (rate.requests, rate.window_ms)), Some(quota), "{value}");
        }
        for value in [
            "",
            "=",
            "=-",
            "100r/m",
            "=r/m",
            "=100",
            "=100r/w",
            "=100r/m ",
            "= 100r/m",
            "=+1r/m",
            "=-1r/m",
            "=1.5r/s",
            "=1e3r/s",
            "=1000000000r/s",
            "=1r/m, 2r/m",
            "=1r/mm",
        ] {
            assert_eq!(told_rate(value), None, "{value}");
        }
    }
}
