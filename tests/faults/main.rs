//! What happens when parts fail: a real API server with its etcd, the control plane, and an Envoy, with a proxy between them
//! that makes faults. Nothing may be lost, and nothing stale may be served once the fault is over.

#[path = "../cluster/mod.rs"]
mod cluster;

mod away;
mod objects;
mod pages;
mod programs;
mod proxy;
mod reading;
mod redis;
mod redis_failover;
mod replicas;
mod slow_lease;
mod streams;
mod world;
