//! Our own messages, generated from the files below `proto`.

/// `chancery.ratelimit.v1`: rate limits between the control plane and the rate limit service.
#[allow(missing_docs, reason = "the .proto file says what they are")]
#[allow(clippy::all, clippy::pedantic, unreachable_pub, reason = "generated")]
pub mod ratelimit {
    include!(concat!(env!("OUT_DIR"), "/chancery.ratelimit.v1.rs"));
}
