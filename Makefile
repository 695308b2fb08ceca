# The commands of a person who works on pgimbal; `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

CACHE := $(or $(PGIMBAL_CACHE),$(HOME)/.cache/pgimbal)
CARGO_DENY := $(CACHE)/cargo-deny/bin/cargo-deny
CARGO_MACHETE := $(CACHE)/cargo-machete/bin/cargo-machete

.PHONY: help build image package demo demo-vault bench test set-up format lint docs deny unit demo-check

help: ## lists these commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## builds the released program, target/release/pgimbal
	cargo build --release -p pgimbal

image: ## builds the container image for amd64 and arm64, twice, and compares the digests
	@deploy/packages image
	@deploy/docker/build

package: ## builds the Debian packages for amd64 and arm64
	@deploy/packages image
	@deploy/systemd/package amd64
	@deploy/systemd/package arm64

demo: ## a rotating password and a dying primary that applications do not notice
	@deploy/demo/run

demo-vault: ## the same with a real Vault, which is built first if there is none
	@deploy/packages vault
	@tests/vault/program build >/dev/null
	@DEMO_CREDENTIALS=vault deploy/demo/run

bench: ## compares with PgBouncer and direct PostgreSQL; BENCH=quick, state or figures for less
	@deploy/bench

test: ## everything that must hold before a change is merged
	@deploy/test

set-up: ## installs what the tests need: Debian packages, Python clients, Vault
	deploy/packages test
	if [[ -x tests/set-up ]]; then tests/set-up; fi

format: ## is the code formatted?
	cargo fmt --all --check

lint: $(CARGO_MACHETE) ## clippy over all targets, benchmarks too: warnings are errors, and unused dependencies
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo clippy -p pgimbal --features otlp --all-targets --quiet -- -D warnings
	$(CARGO_MACHETE) --skip-target-dir .

docs: ## the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

deny: $(CARGO_DENY) ## licences, banned and duplicate crates, known vulnerabilities
	$(CARGO_DENY) --log-level error check bans licenses sources
	@# The list of vulnerabilities is fetched from the network, which a build machine may lack.
	if timeout 120 $(CARGO_DENY) --log-level error fetch db 2>/dev/null; then \
		$(CARGO_DENY) --log-level error check advisories; \
	else echo "advisories: not checked, their list could not be fetched"; fi

$(CARGO_DENY):
	cargo install cargo-deny --locked --quiet --root $(CACHE)/cargo-deny --target-dir $(CARGO_TARGET_DIR)/cargo-deny
	rm -rf $(CARGO_TARGET_DIR)/cargo-deny

$(CARGO_MACHETE):
	cargo install cargo-machete --locked --quiet --root $(CACHE)/cargo-machete --target-dir $(CARGO_TARGET_DIR)/cargo-machete
	rm -rf $(CARGO_TARGET_DIR)/cargo-machete

unit: ## all tests of all crates, against real servers too
	cargo build --workspace
	@# Many tests wait for others most of their time.
	RUST_TEST_THREADS=$$(($$(nproc) + 1)) cargo test --workspace --no-fail-fast
	@# The program with the feature otlp; of the workspace, so that its dependencies are not built again.
	cargo test --workspace --features pgimbal/otlp --test otlp
	cargo test --workspace --features pgimbal/otlp --lib otlp
	cargo build

demo-check: ## the demonstration, as a test
	PROFILE=dev DEMO_SECONDS=20 deploy/demo/run
