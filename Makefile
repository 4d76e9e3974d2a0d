# pg_stock. `make help` lists the targets. Each installs what it needs; none touches an existing cluster or, but for
# `make install`, the PostgreSQL of the system: tests and demo run on a private copy of it.

PG       ?= 15
PGRX     := 0.18.1
SYSTEM   ?= /usr/lib/postgresql/$(PG)/bin/pg_config

# So the clients of PGXN name it: make PG_CONFIG=path all, make PG_CONFIG=path install.
ifeq ($(origin PG_CONFIG),command line)
SYSTEM   := $(shell $(PG_CONFIG) --bindir)/pg_config
PG       := $(shell $(PG_CONFIG) --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
endif

# The copy must be readable for the user postgres, as whom the servers run when make is run by root.
STAGE    := /var/tmp/pg_stock-$(shell id -u)-$(shell printf %s '$(CURDIR)' | cksum | cut -d' ' -f1)
# Another PostgreSQL than the system's, or another copy of it: asserts, early, newest (scripts/setup.sh).
KIND     :=
COPY     := $(STAGE)/pg$(PG)$(KIND:%=-%)
CONFIG   := $(COPY)$(SYSTEM)
TOOLS    := $(CURDIR)/.tools

export PATH       := $(TOOLS)/bin:$(HOME)/.cargo/bin:$(PATH)
export PGRX_HOME  := $(TOOLS)/pgrx
# PostgreSQL's own environment variables must not lead a test to somebody's cluster.
unexport PGHOST PGPORT PGUSER PGDATABASE PGDATA PGSERVICE PGOPTIONS
# pgrx asks who it is; a shell that nobody logged in to does not say.
export USER       := $(or $(USER),$(shell id -un))
# Where the scripts write down what they had to skip.
export PG
export PG_STOCK_SKIPPED := $(STAGE)/skipped
SKIPS    := sort -u $(PG_STOCK_SKIPPED) 2>/dev/null || echo nothing
export PG_STOCK_PROGRAMS := $(COPY)$(dir $(SYSTEM))

MAJORS   := 15 16 17 18
VERSION  := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
# The install scripts of earlier releases.
EARLIER  := $(filter-out %--$(VERSION).sql,$(wildcard sql/released/*.sql))
# What the core promises; and what a major of PostgreSQL may break first.
PROMISES := races isolation pairs interruptions outcome_table expiry settle queues road lots
RISKY    := direct:: early:: races:: durability:: worker:: feed::

FEATURES := --no-default-features --features pg$(PG)
RUNAS    := $(if $(filter 0,$(shell id -u)),--runas postgres)

.PHONY: help demo test no-skips test-core test-database test-outside test-settings test-upgrade test-majors test-newer-majors test-risky test-minors test-asserts test-with-asserts test-cache test-monitoring test-packages demo-packages bench bench-full bench-expiry bench-batches bench-queues bench-lots bench-import bench-counters bench-indexes bench-history bench-feed lint all install package image test-package dist clean rust setup stage stage-release

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 26
	@echo '  Settings: PG=15|16|17|18 (default 15), SYSTEM=path of another pg_config'

demo: rust demo-packages stage-release ## a flash sale on a private throwaway PostgreSQL, with proof that nothing was oversold; ARGS=--show-sql shows the queries
	cargo run --release -p pg_stock_bench -- flash-sale $(ARGS)

test: rust no-skips test-packages test-core test-database test-outside test-settings test-upgrade test-cache test-monitoring ## all tests
	@echo 'All groups passed. What was skipped, and why:'
	@$(SKIPS)

no-skips:
	@rm -f $(PG_STOCK_SKIPPED)

test-core: setup ## the rules alone, against a naive model
	cargo test -p pg_stock_core

test-database: stage ## inside the database
	@rm -rf $(STAGE)/pgrx-data && mkdir -p $(STAGE)
	@$(if $(RUNAS),install -d -o postgres -g postgres -m 700 $(STAGE)/pgrx-data)
	cargo pgrx test $(RUNAS) --pgdata $(STAGE)/pgrx-data $(FEATURES) pg$(PG)
	@rm -rf $(STAGE)/pgrx-data
	@# These tests installed themselves along with the extension.
	$(MAKE) --no-print-directory stage

test-outside: rust test-packages stage ## over real connections: races, interruptions, dumps, hostile input
	scripts/test-outside.sh $(CONFIG)

test-settings: rust test-packages stage ## the promises of the core again, with each other way to let go and to write
	for setting in early_lock_release=off early_lock_release=transaction direct_access=off; do \
		PG_STOCK_SETTINGS=pg_stock.$$setting scripts/test-outside.sh $(CONFIG) $(PROMISES) || exit 1; \
	done

test-upgrade: rust test-packages stage ## the promises with the SQL of each earlier release; pg_upgrade
	for script in $(EARLIER); do \
		release=$${script#*--}; export PG_STOCK_VERSION=$${release%.sql}; \
		scripts/test-outside.sh $(CONFIG) $(PROMISES) || exit 1; \
	done
	scripts/test-pg-upgrade.sh $(PG) $(STAGE) $(shell printf '%s\n' $(MAJORS) | sort -rn | awk '$$1 > $(PG)')

test-majors: rust no-skips test-core ## all tests that the database's major matters to, with each major
	for major in $(MAJORS); do \
		$(MAKE) PG=$$major SYSTEM=/usr/lib/postgresql/$$major/bin/pg_config \
			test-packages test-database test-outside test-settings test-upgrade || exit 1; \
	done
	@echo 'What was skipped, and why:'; $(SKIPS)

test-newer-majors: rust ## the riskiest tests with 17 and 18, where most has changed
	for major in 17 18; do \
		$(MAKE) PG=$$major SYSTEM=/usr/lib/postgresql/$$major/bin/pg_config test-risky || exit 1; \
	done

test-risky: rust test-packages stage
	scripts/test-outside.sh $(CONFIG) $(RISKY)

test-minors: rust ## built with the headers of an early minor release of 15 and 16, run on the newest, and the other way round
	for major in 15 16; do \
		path=/usr/lib/postgresql/$$major/bin/pg_config; \
		$(MAKE) PG=$$major SYSTEM=$$path KIND=early stage && $(MAKE) PG=$$major SYSTEM=$$path KIND=newest stage && \
		PG=$$major scripts/test-minors.sh $(STAGE)/pg$$major-early$$path $(STAGE)/pg$$major-newest$$path \
			$(PROMISES) $(RISKY) || exit 1; \
	done

test-asserts: rust no-skips ## with a PostgreSQL 15 or 18 that was built with its own assertions (about half an hour)
	$(MAKE) KIND=asserts test-with-asserts
	@echo 'What was skipped, and why:'; $(SKIPS)

test-with-asserts: rust test-packages stage
	scripts/test-asserts.sh $(CONFIG) $(COPY)-logs

test-cache: rust test-packages stage ## the Redis cache: its scripts, readers, and what happens when things break
	scripts/test-cache.sh $(PG)

test-monitoring: rust stage ## Prometheus and its exporters on a live sale: each query of board and alerts is answered
	scripts/setup.sh monitoring $(STAGE)/monitoring
	PG_STOCK_MONITORING=$(STAGE)/monitoring/usr/bin cargo test -p pg_stock_tests --test monitoring

bench: rust demo-packages stage-release ## pg_stock beside its peers, the short form (about a quarter of an hour); ARGS='--only hot' for less
	cargo run --quiet --release -p pg_stock_bench -- peers $(ARGS)

bench-full: rust demo-packages stage-release ## the same with all work, contestants and connections (about an hour)
	cargo run --quiet --release -p pg_stock_bench -- peers --full $(ARGS)

bench-expiry: stage-release ## how late holds come back, and what it costs buyers (about eight minutes); ARGS='--only lateness' for less
	cargo run --quiet --release -p pg_stock_bench -- expiry $(ARGS)

bench-batches: stage-release ## what batches cost on databases that were never analysed, restored, analysed (about two minutes)
	cargo run --quiet --release -p pg_stock_bench -- batches $(ARGS)

bench-queues: stage-release ## what it costs to wait for what is not there yet, and to pay those who wait (about two minutes)
	cargo run --quiet --release -p pg_stock_bench -- queues $(ARGS)

bench-lots: stage-release ## what lots cost those who reserve (about three minutes)
	cargo run --quiet --release -p pg_stock_bench -- lots $(ARGS)

bench-import: stage-release ## what it takes to load a shop of 200,000 levels (about two minutes)
	cargo run --quiet --release -p pg_stock_bench -- import $(ARGS)

bench-counters: stage-release ## what it costs to count calls (about four minutes)
	cargo run --quiet --release -p pg_stock_bench -- counters $(ARGS)

bench-indexes: stage-release ## what the indexes cost that docs/operating.md offers for look-ups (about six minutes)
	cargo run --quiet --release -p pg_stock_bench -- indexes $(ARGS)

bench-history: stage-release ## what history costs buyers, verify() of it, and archiving it (about fifteen minutes, 10 GB of disk); ARGS='--levels 100000 --rows 1000000' for less
	cargo run --quiet --release -p pg_stock_bench -- history $(ARGS)

bench-feed: stage-release ## what notifications cost buyers, and how soon they come (about six minutes); ARGS='--rounds 3' for less
	cargo run --quiet --release -p pg_stock_bench -- feed $(ARGS)

lint: stage ## formatting, warnings, documentation, who uses whom, SQL safety
	@scripts/setup.sh lint-packages
	shellcheck --severity=warning scripts/*.sh packaging/*.sh packaging/oci/*.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --quiet
	cargo clippy --manifest-path core/fuzz/Cargo.toml --target-dir target/fuzz --quiet -- -D warnings
	cargo test -p pg_stock_tests --test house
	scripts/lint.sh "$$($(CONFIG) --sharedir)/extension" $(TOOLS) $(VERSION)

install: setup ## build and install into the system's PostgreSQL
	@[ -x $(SYSTEM) ] || { echo 'There is no $(SYSTEM): install PostgreSQL $(PG), or name another: SYSTEM=' >&2; exit 1; }
	cargo pgrx install --release $(if $(RUNAS),,--sudo) --pg-config $(SYSTEM) $(FEATURES)

all: setup
	@# It only adds to the tree, and whatever is there would be packed.
	rm -rf target/release/pg_stock-pg$(PG)
	cargo pgrx package --pg-config $(CONFIG) $(FEATURES)

package: all ## Debian packages of the extension for PostgreSQL PG and of the cache worker, into target/packages
	@scripts/setup.sh package-packages
	scripts/package.sh $(VERSION) server $(PG) target/release/pg_stock-pg$(PG) target/packages
	cargo build --release -p pg_stock_cache
	scripts/package.sh $(VERSION) cache target/release/pg-stock-cache target/packages

image: package ## OCI images of the packages: pg_stock:PG, pg_stock_cache:PG, pg_stock_extension:PG; BASE=debian:bookworm
	scripts/image.sh $(VERSION) $(PG) target/packages $(BASE)

test-package: package ## what was packed is installed, used and removed in containers
	@scripts/setup.sh test-package-packages
	scripts/test-package.sh $(VERSION) $(PG) target/packages
	scripts/test-image.sh $(VERSION) $(PG) target/packages

dist: ## a release for PGXN, of what is committed, into target
	scripts/dist.sh $(VERSION)

clean: ## remove everything that was built
	rm -rf target .tools $(STAGE) core/fuzz/target
	docker image rm --force $$(docker image ls -q --filter reference='pg_stock*' 2>/dev/null) >/dev/null 2>&1 || true

# Before anything is installed.
rust:
	@command -v cargo >/dev/null || { echo 'Rust is missing (cargo is not in PATH): install it by rustup, 1.95 or newer' >&2; exit 1; }

setup: rust
	@scripts/setup.sh packages $(PG) $(SYSTEM)
	@scripts/setup.sh pgrx $(PGRX) $(TOOLS)
	@scripts/setup.sh copy $(PG) $(SYSTEM) $(COPY) $(KIND)
	@mkdir -p $(PGRX_HOME)
	@grep -qsF '$(CONFIG)' $(PGRX_HOME)/config.toml || cargo pgrx init --pg$(PG) $(CONFIG)

demo-packages:
	@scripts/setup.sh demo-packages

test-packages:
	@scripts/setup.sh test-packages $(PG) $(SYSTEM)

stage: setup
	cargo pgrx install --pg-config $(CONFIG) $(FEATURES)
	@cp $(EARLIER) "$$($(CONFIG) --sharedir)/extension"

stage-release: setup
	cargo pgrx install --release --pg-config $(CONFIG) $(FEATURES)
