# A thin front over `cargo xtask`, which does the work; see `cargo xtask help`.
# Every target does all the set-up it needs. Built tools are kept outside the checkout, in $LEYLINE_CACHE
# (default ~/.cache/leyline), so that a second run reuses them.

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help bootstrap setup demo demo-down test lint crds clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

bootstrap:
	@sh xtask/bootstrap.sh

setup: bootstrap ## install and build everything that is needed (the other targets do it too)
	@cargo xtask setup

demo: bootstrap ## a cluster on this machine, Leyline and a sample application; prints what Leyline found
	@cargo xtask demo

demo-down: bootstrap ## remove the demo completely
	@cargo xtask demo-down

test: bootstrap ## all levels of tests: lint, unit, golden, eBPF, API server, end-to-end
	@cargo xtask test

lint: bootstrap ## formatting, clippy, docs and dependencies only
	@cargo xtask lint

crds: bootstrap ## write crds/*.yaml from the types in crates/api
	@cargo xtask crds

clean: ## remove what was built in this checkout (not the cache)
	@cargo clean
