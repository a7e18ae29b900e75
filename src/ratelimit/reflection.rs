//! gRPC reflection. Its descriptors take megabytes once they are decoded, and hardly anybody ever asks for them, so they are read
//! for the first who does: some milliseconds, for which calls on that thread wait.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic_reflection::server::Builder;
use tonic_reflection::server::v1::{self, ServerReflectionServer};
use tonic_reflection::server::v1alpha;

use crate::descriptors;

const READABLE: &str = "build.rs wrote the descriptor sets";

/// What the service tells of itself, as clients of today ask for it.
pub(super) fn current() -> Lazy<ServerReflectionServer<impl v1::ServerReflection>> {
    Lazy::new(|| described().build_v1().expect(READABLE))
}

/// The same, as those of yesterday ask for it.
pub(super) fn alpha() -> Lazy<v1alpha::ServerReflectionServer<impl v1alpha::ServerReflection>> {
    Lazy::new(|| described().build_v1alpha().expect(READABLE))
}

fn described() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(descriptors::RATE_LIMIT_SERVICE)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// A service that is made for its first request. All clones share it.
pub(super) struct Lazy<S> {
    service: Arc<OnceLock<S>>,
    make: fn() -> S,
}

impl<S> Lazy<S> {
    fn new(make: fn() -> S) -> Self {
        Self { service: Arc::default(), make }
    }
}

impl<S> Clone for Lazy<S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), make: self.make }
    }
}

impl<S: NamedService> NamedService for Lazy<S> {
    const NAME: &'static str = S::NAME;
}

impl<R, S: Service<R> + Clone> Service<R> for Lazy<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    // Those of tonic are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> S::Future {
        self.service.get_or_init(self.make).clone().call(request)
    }
}
