# What one does with this repository; `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo evm softhsm kryoptic s3 release release-hsm nitro openssl test consensus check fmt clippy doc deny advisories tcb tcb-check fuzz bench need c++

# Tools that cargo does not bring along are built here, once, in these versions.
TOOLS := $(CURDIR)/target/tools
CARGO_DENY := $(TOOLS)/bin/cargo-deny
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ := $(TOOLS)/bin/cargo-fuzz
CARGO_FUZZ_VERSION := 0.13.2

# The Ethereum node of the demo and the tests. Its versions and hashes are in deploy/evm/package-lock.json.
EVM := $(TOOLS)/evm
ANVIL = $(firstword $(wildcard $(EVM)/node_modules/@foundry-rs/anvil-*/bin/anvil))

# PKCS#11 modules: a distribution's SoftHSM2, and Kryoptic as deploy/pkcs11 builds it. Empty when not to be had.
SOFTHSM = $(firstword $(wildcard $(foreach lib,/usr/lib /usr/lib64 /usr/local/lib,$(lib)/softhsm/libsofthsm2.so)))
KRYOPTIC = $(wildcard $(TOOLS)/kryoptic/libkryoptic_pkcs11.so)

# An S3 server, as deploy/s3 builds it. Empty when not to be had.
S3 = $(wildcard $(TOOLS)/s3/bin/s3s-fs)

# For each fuzz target.
SECONDS ?= 60
DEMO_ARGS ?=
PLATFORM ?= simulated
BENCH_ARGS ?=

export PATH := $(TOOLS)/bin:$(PATH)

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: release evm $(if $(filter-out simulated,$(PLATFORM)),softhsm release-hsm) ## three parties, three keys, real signatures (PLATFORM=hsm: keys in SoftHSM; DEMO_ARGS="--keep DIR")
	ARCA_ANVIL="$${ARCA_ANVIL:-$(ANVIL)}" $(TARGET_DIR)/release/arca demo --platform $(PLATFORM) $(DEMO_ARGS)

bench: release ## latency and throughput, see docs/benchmarks.md (BENCH_ARGS are passed on)
	$(TARGET_DIR)/release/arca bench $(BENCH_ARGS)

# The enclave apart from the others: built together, their features would unify and the enclave would carry
# more code than it needs.
release: need
	cargo build --locked --release -p arca-enclave-simulated
	cargo build --locked --release -p arca-host -p arca-client

# For an image without a C library. Into a folder of its own: the flags would have everything else built anew.
nitro: need ## the Nitro enclave's program, linked statically
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target x86_64-unknown-linux-gnu \
		--target-dir $(TARGET_DIR)/nitro -p arca-enclave-nitro
	@file=$(TARGET_DIR)/nitro/x86_64-unknown-linux-gnu/release/arca-enclave-nitro; \
	if readelf -l "$$file" | grep -q INTERP; then echo "$$file asks for a loader: it is not static" >&2; exit 1; fi; \
	"$$file" --version && echo "static: $$file"

release-hsm: need
	cargo build --locked --release -p arca-enclave-hsm
	cargo build --locked --release -p arca-enclave-hsm-simulated

test: need openssl evm softhsm kryoptic s3 ## every test; the end-to-end ones start real processes
	cargo build --locked -p arca-enclave-simulated -p arca-enclave-hsm -p arca-enclave-hsm-simulated -p arca-host -p arca-client
	ARCA_ANVIL="$${ARCA_ANVIL:-$(ANVIL)}" ARCA_SOFTHSM="$${ARCA_SOFTHSM:-$(or $(SOFTHSM),none)}" \
		ARCA_KRYOPTIC="$${ARCA_KRYOPTIC:-$(or $(KRYOPTIC),none)}" ARCA_S3="$${ARCA_S3:-$(or $(S3),none)}" cargo test --locked --workspace

consensus: need c++ ## signed Bitcoin transactions judged by Bitcoin Core's own code; needs a C++ compiler
	cargo test --locked -p arca-tests --features consensus --test consensus

check: fmt clippy doc deny tcb-check ## format, lints, documentation, dependency rules

fmt:
	cargo fmt --all --check
	rustfmt --edition 2024 --check tests/fuzz/fuzz_targets/*.rs

clippy: need
	cargo clippy --locked --workspace --all-targets -- -D warnings

doc: need
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

deny: $(CARGO_DENY) ## licences, sources, banned and doubled crates
	$(CARGO_DENY) --locked check bans licenses sources

advisories: $(CARGO_DENY) ## known vulnerabilities (fetches the RustSec database from GitHub)
	$(CARGO_DENY) --locked check advisories

tcb: ## writes down what the enclave binaries are made of, after a wanted change
	deploy/tcb/tcb.sh update

tcb-check:
	deploy/tcb/tcb.sh check

fuzz: need c++ $(CARGO_FUZZ) ## every decoder, SECONDS each (default 60); needs a nightly toolchain and a C++ compiler
	@rustup run nightly rustc --version || { echo "missing: rustup toolchain install nightly" >&2; exit 1; }
	cd tests/fuzz; for fuzz_target in $$(cargo +nightly fuzz list --fuzz-dir .); do \
		seeds=seeds/$$fuzz_target; [[ -d $$seeds ]] || seeds=; mkdir -p "corpus/$$fuzz_target"; \
		cargo +nightly fuzz run --fuzz-dir . "$$fuzz_target" "corpus/$$fuzz_target" $$seeds -- -max_total_time=$(SECONDS); \
	done

$(CARGO_DENY):
	cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION) --root $(TOOLS)

$(CARGO_FUZZ):
	cargo install --locked cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root $(TOOLS)

# Without npm, or offline, what needs an Ethereum node is left out, and says so.
evm: ## Foundry's anvil through npm, for the demo and the tests
	@if ! command -v npm > /dev/null; then echo "make evm: no npm, so no Ethereum node: what needs one is left out"; \
	elif ! cmp -s deploy/evm/package-lock.json $(EVM)/installed.json; then \
		mkdir -p $(EVM) && cp deploy/evm/package*.json $(EVM)/ && \
		if (cd $(EVM) && npm ci --ignore-scripts --no-audit --no-fund --prefer-offline --fetch-retry-mintimeout=1000 --loglevel=error); then \
			cp deploy/evm/package-lock.json $(EVM)/installed.json; \
		else echo "make evm: npm could not install anvil: what needs an Ethereum node is left out"; fi; \
	fi

# Where they cannot be had, what needs one is left out, and says so; with ARCA_NEED_MODULES=1 that is an error.
softhsm: ## SoftHSM2, for the demo on HSMs and the tests
	@deploy/pkcs11/modules.sh softhsm $(TOOLS)

kryoptic: need ## Kryoptic, a second PKCS#11 module for the tests
	@deploy/pkcs11/modules.sh kryoptic $(TOOLS)

s3: need ## s3s-fs, an S3 server for the tests
	@deploy/s3/server.sh $(TOOLS)

# Another implementation of what AWS KMS computes, for the stand-in that the Nitro platform is tested against.
openssl:
	@deploy/pkcs11/modules.sh openssl $(TOOLS)

# Some crates contain C, which rustup does not compile.
need:
	@command -v cargo > /dev/null || { echo "missing cargo: install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v cc > /dev/null || { echo "missing a C compiler: apt-get install gcc" >&2; exit 1; }

c++:
	@command -v c++ > /dev/null || { echo "missing a C++ compiler: apt-get install g++" >&2; exit 1; }
