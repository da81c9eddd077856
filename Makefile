# `make help` lists the commands. Each needs nothing but what `make setup` installs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Where images are pushed to and deployed from, and under which tag.
REGISTRY ?= ghcr.io/larder-dev
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
TAG ?= v$(VERSION)
KUBECTL ?= kubectl

CLUSTER := cargo run --quiet --package larder-e2e --bin larder-cluster --
step := hack/step

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# --- for people ------------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## A cluster on this machine, Larder in it, a tour of what it does; leaves the cluster up
	@hack/demo

.PHONY: cluster-up
cluster-up: setup ## The local cluster alone
	@$(step) "Starting the local cluster" $(CLUSTER) up

.PHONY: cluster-down
cluster-down: ## Ends the local cluster and removes everything it made
	@$(CLUSTER) down

# --- build -----------------------------------------------------------------------------------------------------

.PHONY: setup
setup: ## Installs what this machine lacks: system packages, tools
	@$(step) "Checking this machine for what Larder needs" e2e/setup.sh

.PHONY: binaries
binaries: ## Static release builds, in target/larder/bin/linux_amd64
	@$(step) "Building static binaries (three minutes on two cores when nothing is cached)" hack/binaries

.PHONY: images
images: binaries ## The three images, as OCI layouts in target/larder/images
	@$(step) "Building the images" hack/images build

.PHONY: push
push: images ## Pushes the images: make push REGISTRY=registry.example.com/team
	@$(step) "Pushing the images to $(REGISTRY)" hack/images push $(REGISTRY) $(TAG)

.PHONY: generate
generate: ## Writes the generated files: crds/, image references in deploy/
	@$(step) "Generating files" hack/generate

# --- install into the cluster of the current kubeconfig ----------------------------------------------------------

.PHONY: deploy
deploy: ## Installs Larder: make deploy REGISTRY=registry.example.com/team
	@$(step) "Installing Larder from $(REGISTRY)" env KUBECTL="$(KUBECTL)" hack/deploy $(REGISTRY) $(TAG)

.PHONY: undeploy
undeploy: ## Deletes every ImageCache, waits, then removes Larder
	@$(step) "Removing Larder" env KUBECTL="$(KUBECTL)" hack/undeploy

# --- test ------------------------------------------------------------------------------------------------------

.PHONY: test
test: setup test-fast e2e ## Everything: test-fast, then end-to-end on a real cluster

.PHONY: test-fast
test-fast: ## Formatting, lints, licences, generated files, crate boundaries, unit, property and fuzz tests: no cluster
	@$(step) "Formatting" cargo fmt --all --check
	@$(step) "Lints" cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(step) "Lints of the shipped no-op" cargo clippy --package larder-noop --release --locked -- -D warnings
	@$(step) "Licences and banned crates" hack/deny
	@$(step) "Generated files" hack/generate --check
	@$(step) "Crate boundaries" hack/check-arrows
	@$(step) "Tests of the checks" hack/tests/run
	@$(step) "Unit and property tests" cargo test --workspace --exclude larder-e2e --locked
	@$(step) "Unit tests of the local cluster" cargo test --package larder-e2e --lib --bins --locked
	@$(step) "Fuzz targets, 10,000 inputs each" hack/fuzz 10000

.PHONY: e2e
e2e: setup images ## End-to-end tests on a real cluster
	@hack/e2e

.PHONY: soak
soak: setup images ## The long forms of the tests
	@$(step) "Property tests, long" env PROPTEST_CASES=20000 cargo test --workspace --exclude larder-e2e --release --locked
	@$(step) "End-to-end tests, long" env LARDER_SOAK=1 hack/e2e

RUNS ?= 100000

.PHONY: fuzz
fuzz: ## Random inputs for each parser of strangers' words, grown by coverage: make fuzz RUNS=1000000
	@$(step) "Fuzz targets, $(RUNS) inputs each" hack/fuzz $(RUNS)

.PHONY: bench
bench: setup images ## Measures pulls, refreshes and API writes; results in bench/results
	@hack/bench
