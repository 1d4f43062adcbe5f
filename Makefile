# event_queue: build, install, demo, tests.  "make help" lists the targets.

# The server to build for: PG_CONFIG=... chooses; else the first pg_config that
# has the server's headers.
PG_CONFIG ?= $(shell test/lib/find-pg-config.sh)

EXTENSION = event_queue
EXTVERSION = 0.2.0
MODULE_big = event_queue
# src/bin is the program eventq, which src/bin/eventq.mk builds.
PROGRAM_FILES = $(wildcard src/bin/*.c src/bin/*.h)
SOURCES = $(filter-out src/bin/%,$(sort $(wildcard src/*.c src/*/*.c)))
ALL_HEADERS = $(filter-out src/bin/%,$(sort $(wildcard src/*.h src/*/*.h)))
OBJS = $(SOURCES:.c=.o)

# The install script is joined from these, in this order.
SQL_PARTS = src/event_queue.sql src/tenant/tenant.sql src/store/store.sql src/common/audit.sql src/store/state.sql \
	src/queue/queue.sql src/queue/job.sql src/queue/enqueue.sql src/queue/claim.sql \
	src/queue/settle.sql src/queue/lease.sql src/queue/admin.sql src/queue/dead.sql \
	src/queue/history.sql src/queue/trace.sql src/queue/maintain.sql src/queue/group.sql src/queue/flow.sql \
	src/queue/waiting.sql \
	src/rules/rules.sql src/rules/counts.sql src/rules/on_table.sql src/rules/versions.sql src/rules/runs.sql src/rules/backfill.sql src/schedule/schedule.sql src/schedule/run.sql src/schedule/clock.sql src/schedule/calendar.sql src/steps/steps.sql src/steps/events.sql \
	src/observe/lineage.sql src/store/subscription.sql src/store/partition.sql \
	src/wake/wake.sql src/store/activation.sql src/watch/faults.sql \
	src/observe/observe.sql src/observe/metrics.sql src/observe/queue_health.sql src/observe/lists.sql src/observe/explain.sql src/worker/handler.sql src/observe/health.sql src/observe/stats.sql src/observe/figures.sql \
	src/observe/alerts.sql src/observe/queue_history.sql src/observe/alert_test.sql src/observe/audited.sql src/tenant/checks.sql src/tenant/grants.sql
INSTALL_SQL = $(EXTENSION)--$(EXTVERSION).sql

# From the version before; src/update/make-update.pl says how the script is made.  When a
# version is released, its install script and its update script go to src/update as
# they are, EXTVERSION and UPDATES_FROM go on, and the next change of SQL begins a new
# src/update/OLD--NEW.sql.
UPDATES_FROM = 0.1.0
UPDATE_SQL = $(UPDATES_FROM:%=$(EXTENSION)--%--$(EXTVERSION).sql)
DATA = $(sort $(wildcard src/update/$(EXTENSION)--*.sql))
DATA_built = $(INSTALL_SQL) $(UPDATE_SQL)

PG_CPPFLAGS = -I$(CURDIR)/src
# PostgreSQL's own headers don't pass -Wextra without these three.  A warning is
# an error in "make check" only: each compiler has new ones, and who installs
# can't mend them.
PG_CFLAGS = -Wall -Wextra $(WERROR) -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers $(EXTRA_CFLAGS)
override with_llvm = no
EXTRA_CLEAN = $(INSTALL_SQL) $(UPDATE_SQL) src/update/gone.inc src/table/own_parts.inc $(OBJS:.o=.gcda) $(OBJS:.o=.gcno) tmp_check results

# Targets that bring what they need themselves, and so must not need PGXS.
STANDALONE = help demo check check-one check-matrix fuzz bench bench-counters coverage format format-check reference deps deb check-deb check-drivers check-node e2e bench-bull bench-compare check-browser screenshots fuzz-http check-prometheus
ifeq ($(filter $(STANDALONE),$(MAKECMDGOALS)),)
PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifeq ($(PGXS),)
$(error No pg_config with server headers found; run "make deps", or give PG_CONFIG=/path/to/pg_config)
endif
include $(PGXS)
ifeq ($(filter 15 16 17 18,$(MAJORVERSION)),)
$(error event_queue needs PostgreSQL 15 to 18, $(PG_CONFIG) is of $(VERSION))
endif
# A header may be seen by any source; rebuilding all takes seconds.
$(OBJS): $(ALL_HEADERS) Makefile
src/update/gone.o: src/update/gone.inc
include src/bin/eventq.mk

# what of its tables the extension made itself
src/table/own_parts.o: src/table/own_parts.inc
src/table/own_parts.inc: src/bin/doctor_expected.inc Makefile
	sed -n 's/^{"\(table\|column\|constraint\|check\|index\|trigger\|always\|policy\)", "\([^"]*\)", "\([^"]*\)".*/{"\1", "\2", "\3"},/p' $< > $@.tmp
	mv $@.tmp $@

$(INSTALL_SQL): $(SQL_PARTS) Makefile
	{ printf '%s\n' '\echo Use "CREATE EXTENSION event_queue" to load this file. \quit'; \
	  for part in $(SQL_PARTS); do echo; cat $$part; done; } > $@.tmp
	mv $@.tmp $@

$(UPDATE_SQL): $(EXTENSION)--%--$(EXTVERSION).sql: src/update/%--$(EXTVERSION).sql src/update/$(EXTENSION)--%.sql \
		src/update/make-update.pl src/update/update.sql $(SQL_PARTS) Makefile
	perl src/update/make-update.pl $* $(EXTVERSION) $(SQL_PARTS) > $@.tmp
	mv $@.tmp $@

# C functions that an older version names and no source has
src/update/gone.inc: $(DATA) $(SOURCES) src/update/gone.pl Makefile
	perl src/update/gone.pl $(DATA) $(SOURCES) > $@.tmp
	mv $@.tmp $@

else

.PHONY: help deps demo check check-one check-matrix fuzz bench bench-counters coverage format format-check reference deb check-deb check-drivers check-node e2e bench-bull bench-compare check-browser screenshots fuzz-http check-prometheus

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | sort | column -t -s '|'
	@echo '  make all            build the library and the install script (the default)'
	@echo '  make install        install them where PG_CONFIG says'
	@echo '  make clean          remove what was built'

deps: ## install what is missing, by apt (as root or with sudo)
	@test/lib/install-deps.sh build test

demo: ## the ERP flow on a private cluster (KEEP=1 leaves it up)
	@test/lib/install-deps.sh build
	@$(MAKE) -s --no-print-directory install
	@test/lib/with-cluster.sh $(if $(KEEP),--keep) examples/erp/demo.sh

check: ## build, install and run all tests on private clusters
	@test/lib/install-deps.sh build test format
	@$(MAKE) -s --no-print-directory format-check
	@perl test/arrows.pl --self-test && perl test/arrows.pl
	@perl test/errors.pl --self-test && perl test/errors.pl
	@perl test/meta.pl --self-test && perl test/meta.pl
	@$(MAKE) -s --no-print-directory install WERROR=-Werror
	@test/run.sh $(TESTS)

check-one: ## one test: TEST=queue, or any part of a test file's name
	@$(MAKE) -s --no-print-directory install
	@test/run.sh --only '$(TEST)'

check-matrix: ## "make check" on PostgreSQL 15, 15 with assertions, 17 and 18, each in a Debian of its own (root; CELLS=...)
	@test/matrix/run.sh $(CELLS)

fuzz: ## random and hostile calls of every function by every kind of role (SECONDS=60 SEED=1 SESSIONS=6)
	@test/lib/install-deps.sh build fuzz
	@$(MAKE) -s --no-print-directory install
	@ulimit -c unlimited 2>/dev/null; EQ_FSYNC=off EQ_CONF="$$(cat test/fuzz/server.conf)" test/lib/with-cluster.sh \
		python3 test/fuzz/fuzz.py --seconds $(or $(SECONDS),60) --sessions $(or $(SESSIONS),6) $(if $(SEED),--seed $(SEED))

bench: ## benchmarks: one line "BENCH name event_queue=N yardstick=N ratio=R" each
	@test/lib/install-deps.sh build
	@test/lib/install-deps.sh bench || echo '# without them some lines are skipped'
	@$(MAKE) -s --no-print-directory install
	@# room for what a benchmark touches, so that it does not measure evictions
	@EQ_CONF="shared_buffers = 1GB" test/lib/with-cluster.sh test/bench/run.sh

bench-counters: ## what counters and histograms cost: as bench-compare, against this tree built without them (root)
	@BASE_CFLAGS=-DEQ_NO_METRICS ONLY='enqueue drain' test/bench/compare.sh .

coverage: ## line coverage of the C code by the whole test run
	@test/lib/install-deps.sh build test coverage
	@test/coverage.sh

format: ## write the C code in the project's format
	@test/lib/install-deps.sh format
	@clang-format -i $(SOURCES) $(ALL_HEADERS) $(PROGRAM_FILES)

format-check: ## fail if "make format" or "make reference" would change anything
	@test/lib/install-deps.sh format
	@case "$$(clang-format --version)" in \
		*"version 14."*) clang-format --dry-run --Werror $(SOURCES) $(ALL_HEADERS) $(PROGRAM_FILES) ;; \
		*) echo 'the C code was formatted by clang-format 14, and each version differs a little: not checked here' ;; \
	esac
	@perl doc/make-reference.pl --check $(SQL_PARTS)

reference: ## the functions in doc/reference.md, from the comments of the SQL files
	@perl doc/make-reference.pl $(SQL_PARTS)

check-drivers: ## drivers of node: views and results that they can read (npm install; skipped without node)
	@$(MAKE) -s --no-print-directory install
	@test/drivers/run.sh

check-node: ## the Node client of clients/node, with real ORMs and outages of the server (npm ci; skipped without node)
	@$(MAKE) -s --no-print-directory install
	@clients/node/test/run.sh

e2e: ## examples/nestjs over HTTP for two minutes, with latencies, the server and the process killed; E2E=short: a quarter of a minute
	@$(MAKE) -s --no-print-directory install
	@clients/node/test/run.sh e2e

bench-compare: ## this tree against another commit, run by run, COMPARE lines (BASE=COMMIT, ROUNDS=15; root)
	@test/bench/compare.sh $(BASE)

bench-bull: ## the Node client side by side with Bull on Redis, BENCH lines (JOBS=5000; skipped without node or redis-server)
	@$(MAKE) -s --no-print-directory install
	@test/bench/bull/run.sh

check-browser: ## the dashboard in headless Chromium, with axe-core (npm install; skipped without node or chromium)
	@$(MAKE) -s --no-print-directory install
	@test/browser/run.sh

check-prometheus: ## Debian's Prometheus scrapes eventq serve: rules, panels, an alert that fires and resolves (5 min)
	@test/lib/install-deps.sh build prometheus
	@$(MAKE) -s --no-print-directory install
	@test/prometheus/run.sh

screenshots: ## pictures of the dashboard, into doc/pictures (Chromium, as check-browser)
	@$(MAKE) -s --no-print-directory install
	@EQ_PICTURES="$(CURDIR)/doc/pictures" test/browser/run.sh screenshots.js

fuzz-http: ## bad HTTP against eventq serve under AddressSanitizer (SECONDS=30 SEED=1)
	@$(MAKE) -s --no-print-directory install
	@SECONDS_TO_RUN=$(or $(SECONDS),30) SEED=$(or $(SEED),1) test/fuzz/http.sh

deb: ## Debian packages of what is committed, into ./packages
	@test/lib/install-deps.sh package
	@packaging/deb.sh

check-deb: ## build the packages; install, try and remove them in a bare debootstrap (root)
	@test/lib/install-deps.sh package
	@test/packaging/deb.sh

endif
