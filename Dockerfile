# Chancery alone: Envoy comes from its own image (manifests/base/kustomization.yaml names the version).
#   docker build --tag ghcr.io/chancery-dev/chancery:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin chancery && cp target/release/chancery /chancery

# The C library of the same Debian and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /chancery /usr/local/bin/chancery
# xDS, the debug endpoint, and the rate limit service.
EXPOSE 18000 18001 18002
ENTRYPOINT ["/usr/local/bin/chancery"]
CMD ["serve"]
