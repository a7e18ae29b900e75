//! The rate limit service that Envoy calls: limits, algorithms, counters.
