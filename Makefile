# What a newcomer types. Each target is one script, so it can also be called by hand.

# CI starts from a fresh clone each time: keep the build outside it.
ifdef CI
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/weir-ci/target
export CARGO_INCREMENTAL ?= 0
endif

.PHONY: run run-archive test test-archive archive-proof lint fuzz bench bench-quick bench-cold parity rolling torture torture-faults

run: ## build in release mode and start on 127.0.0.1:9092 with an embedded Redis
	@scripts/run

run-archive: ## the same with the cold tier (Delta Lake tables on S3 or a disk), which takes minutes more to build
	@scripts/run --features archive

test: ## all tests, with a real Redis and real clients
	@scripts/test

test-archive: ## the cold tier's tests, with an S3 server and programs that read its tables
	@scripts/test-archive

archive-proof: ## ten million records through 100 MB of Redis, read back by three clients (OPTIONS="--place s3 --records 1000000")
	@scripts/archive-proof $(OPTIONS)

lint: ## format, clippy, shell scripts
	@scripts/lint

fuzz: ## hostile bytes for every decoder, FUZZ_SECONDS (10) for each
	@scripts/fuzz

bench: ## figures for both layouts, beside Apache Kafka's
	@benches/run

bench-quick: ## guards against regressions: ratios to Redis alone, in under five minutes
	@benches/run --quick

bench-cold: ## the cold tier's figures, with a folder and with a local S3 server: rates, CPU, seeks, producers beside it
	@benches/cold

parity: ## answers compared with a real Apache Kafka's, field by field
	@tests/parity/run

rolling: ## three brokers restart in turn and one is killed, under the load of four real clients (OPTIONS="--rounds 10 --rate 500")
	@cargo build --locked --quiet --bin weir
	@tests/clients/rolling --weir "$${CARGO_TARGET_DIR:-target}/debug/weir" $(OPTIONS)

torture: ## real clients under kills, cuts and pauses, and a checker of what they saw (OPTIONS="--minutes 60 --setting brokers")
	@tests/torture/run $(OPTIONS)

torture-faults: ## a Weir that does something wrong on purpose: the checker must find each of its faults
	@tests/torture/run --faults
