# The everyday commands. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
DENY := tools/cargo/bin/cargo-deny

.PHONY: help run cluster test check fmt clippy deny docs bench envoy kube-apiserver kubectl clean clean-tools

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name about; do \
	    printf '  make %-16s %s\n' "$$name" "$$about"; done

run: ## try it: Envoy, Chancery and a few models on this machine (HTTP_PORT=, HTTPS_PORT=, ADMIN_PORT=)
	@scripts/run

cluster: ## the same against a real Kubernetes API server on this machine, and a kubeconfig for it (API_PORT=, XDS_PORT=)
	@scripts/cluster

test: ## run every test, after setting up what they need
	@scripts/test

check: fmt clippy deny docs ## all that is checked without running anything

fmt: ## check the formatting (cargo fmt repairs it)
	cargo fmt --check

clippy: ## lint all code, warnings are errors
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## check dependencies: bans, licenses, sources, and advisories if their database can be reached
	@scripts/install-cargo-deny
	@scripts/deny

docs: ## build the code's documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

bench: ## measure, through a real Envoy and in process, and write benches/RESULTS.md (a long while; BENCH=--quick for less)
	@scripts/prerequisites test
	@scripts/install-envoy
	@scripts/install-kube-apiserver
	@scripts/install-redis
	@scripts/install-envoyproxy-ratelimit
	cargo bench --bench translate
	cargo bench --bench xds
	cargo bench --bench decisions -- $(BENCH)
	cargo bench --bench ratelimit -- $(BENCH)
	cargo bench --bench ratelimit -- --away $(BENCH)
	cargo bench --bench ratelimit -- --soak 20
	cargo bench --bench change -- $(BENCH)
	KUBEBUILDER_ASSETS=$$(scripts/install-kube-apiserver --where) cargo bench --bench change -- --source kubernetes $(BENCH)
	cargo bench --bench change -- --report

envoy: ## install Envoy into tools/envoy
	@scripts/prerequisites run
	@scripts/install-envoy

kube-apiserver: ## build kube-apiserver and etcd, which `make test` does by itself (some minutes, once a machine)
	@scripts/install-kube-apiserver

kubectl: ## build kubectl and helm, which `make test` does by itself (some minutes, once a machine)
	@scripts/install-kubectl

clean: ## remove what was built
	cargo clean

clean-tools: ## remove the tools that were installed into tools/
	rm -rf tools
