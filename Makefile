# Lunashard. `make quickstart` and `make test` are all a newcomer needs; `make help` lists the rest.

VARIANT ?= release
PREFIX  ?= /usr/local
BUILD   := build/$(VARIANT)
CC      ?= cc
LUAJIT  ?= luajit
PKG     := pkg-config

CSTD    := -std=c11 -D_GNU_SOURCE -pthread
WARN    := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Werror
OPT_release := -O2 -g -DNDEBUG
OPT_debug   := -O0 -g3
OPT_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS  := $(CSTD) $(WARN) $(OPT_$(VARIANT))
LDFLAGS := -pthread $(filter -fsanitize=% -fno-sanitize-recover=%,$(OPT_$(VARIANT))) -Wl,-E

PQ_CFLAGS   = $(shell $(PKG) --cflags libpq)
ARES_CFLAGS = $(shell $(PKG) --cflags libcares)
LUA_CFLAGS  = $(shell $(PKG) --cflags luajit)
LIBS        = $(shell $(PKG) --libs luajit libpq libssl libcrypto libcares libmicrohttpd) -lev -lpg_query -lm

# The layers are kept apart by what each may include.
INC_base := -Isrc/base
INC_io    = $(INC_base) -Isrc/io $(PQ_CFLAGS) $(ARES_CFLAGS)
INC_lua   = $(INC_base) -Isrc/io -Isrc/lua $(PQ_CFLAGS) $(LUA_CFLAGS)
INC_app   = $(INC_lua) -Isrc/app

C_SRC   := $(wildcard src/*/*.c)
LUA_SRC := $(shell find lua -name '*.lua' ! -name '*.d.lua')
C_OBJ   := $(C_SRC:src/%.c=$(BUILD)/%.o)
LUA_OBJ := $(LUA_SRC:lua/%.lua=$(BUILD)/lua/%.o) $(BUILD)/help_texts.o
BIN     := $(BUILD)/lunashard

MANUAL := $(addprefix $(BUILD)/manual/,lunashard.1 bash zsh fish)

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2))

.PHONY: all quickstart test test-unit test-pg test-cli test-fault test-moves test-mutations mutant mutant-object soak soak-memory test-c asan \
	valgrind gcstress lint format format-check annotations docs bench examples check install clean help deps deps-dev

all: $(BIN) ## build the program, VARIANT=release (default), debug or asan

$(BIN): $(C_OBJ) $(LUA_OBJ)
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/%.o: src/%.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(INC_$(firstword $(subst /, ,$*))) -MMD -MP -c -o $@ $<

# "lunashard/cli/run.lua" is found by require("lunashard.cli.run") through its exported symbol.
$(BUILD)/lua/%.o: lua/%.lua
	@mkdir -p $(@D)
	$(call say,LUA,$<)
	$(Q)$(LUAJIT) -b -g -t o -n $(subst /,.,$(patsubst %/init,%,$*)) $< $@

# What help(f) shows at the prompt: the comments, which compiled code has not.
$(BUILD)/help_texts.o: scripts/dev/help_texts.lua $(LUA_SRC)
	@mkdir -p $(@D)
	$(call say,LUA,$@)
	$(Q)$(LUAJIT) $^ > $(@:.o=.lua)
	$(Q)$(LUAJIT) -b -g -t o -n lunashard.repl.texts $(@:.o=.lua) $@

-include $(C_OBJ:.o=.d)

# ---- set-up and first steps ----

quickstart: deps ## three PostgreSQL shards and the first script, on a bare machine
	@$(MAKE) --no-print-directory all
	@cluster=$$($(BIN) sandbox start) && $(BIN) run -c "$$cluster" examples/quickstart.lua

deps: ## install what building and testing take, when something is missing
	@scripts/dev/deps.sh

deps-dev: # and what checks the code
	@scripts/dev/deps.sh dev

install: all $(MANUAL) ## copy the program to $(DESTDIR)$(PREFIX)/bin, its manual, completions and what editors read to share
	install -D -m 755 $(BIN) "$(DESTDIR)$(PREFIX)/bin/lunashard"
	install -D -m 644 -t "$(DESTDIR)$(PREFIX)/share/lunashard" lua/*.d.lua
	install -D -m 755 -t "$(DESTDIR)$(PREFIX)/share/lunashard/scripts" scripts/*.lua
	install -D -m 644 $(BUILD)/manual/lunashard.1 "$(DESTDIR)$(PREFIX)/share/man/man1/lunashard.1"
	install -D -m 644 $(BUILD)/manual/bash "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/lunashard"
	install -D -m 644 $(BUILD)/manual/zsh "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_lunashard"
	install -D -m 644 $(BUILD)/manual/fish "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/lunashard.fish"

# What the program says of itself.
$(BUILD)/manual/lunashard.1: $(BIN)
	@mkdir -p $(@D)
	$(Q)$(BIN) help --format man >$@

$(BUILD)/manual/commands.md: $(BIN)
	@mkdir -p $(@D)
	$(Q)$(BIN) help --format markdown >$@

$(BUILD)/manual/%: $(BIN)
	@mkdir -p $(@D)
	$(Q)$(BIN) completion $* >$@

clean: ## remove all that was built
	rm -rf build

# ---- tests ----

C_TEST := $(patsubst spec/c/%.c,$(BUILD)/spec/%,$(wildcard spec/c/test_*.c))

# C tests see src/base alone; they may use long doubles and doubles freely.
$(BUILD)/spec/%: spec/c/%.c spec/c/test.h $(filter $(BUILD)/base/%,$(C_OBJ))
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(filter-out -Wconversion,$(CFLAGS)) -UNDEBUG $(INC_base) -Ispec/c -MMD -MP $(LDFLAGS) -o $@ $< $(filter %.o,$^) -lm

-include $(C_TEST:=.d)

# What `make test` leaves to `make test-fault`; such specs have #long in their titles.
SHORT_FORM := --exclude-tags=long

SUITES := spec/unit spec/pg spec/cli spec/fault spec/moves

test: deps ## everything below, on servers started for it; SUITES="spec/unit ..." takes some of them
	@$(MAKE) --no-print-directory all test-c
	@scripts/dev/test.sh $(BIN) $(SUITES) $(SHORT_FORM)

test-unit: all ## specs without I/O; ARGS="--filter=..." goes to busted
	@$(BIN) test spec/unit $(ARGS)

test-pg: all ## specs on real PostgreSQL servers
	@scripts/dev/test.sh $(BIN) spec/pg $(ARGS)

test-cli: all ## specs of the program as its users run it
	@scripts/dev/test.sh $(BIN) spec/cli $(ARGS)

test-fault: all ## specs that kill, stop and cut off servers; SHORT=1 without those that `test` passes over too
	@scripts/dev/test.sh $(BIN) spec/fault $(if $(SHORT),$(SHORT_FORM)) $(ARGS)

test-moves: all ## moving rows: a mover struck at each commit in each way, and all other specs of it, half an hour in all
	@scripts/dev/test.sh $(BIN) spec/moves $(wildcard spec/pg/move*_spec.lua spec/pg/rebalance*_spec.lua \
	    spec/fault/move*_spec.lua spec/fault/rebalance*_spec.lua) $(ARGS)

soak: all ## MINUTES (5) of moves under work while things break at random, SEED=n FAULTS=router,fail_over,...; was all true?
	@$(BIN) run spec/chaos/main.lua $(or $(MINUTES),5) $(or $(SEED),$(shell date +%N | cut -c4-8)) $(or $(FAULTS),all) $(RATE)

test-mutations: all ## errors that the checker of moves must tell of: N=3 of them by turns, ONLY="..." one [all]
	@$(BIN) run spec/mutations/main.lua $(if $(ONLY),"$(ONLY)",$(or $(N),all))

# For spec/mutations: SOURCE, which is a changed copy of one in src/LAYER, as the object OUT; and the program with the objects
# WITH in place of those WITHOUT, as OUT.
mutant-object:
	$(Q)$(CC) $(CFLAGS) $(INC_$(LAYER)) -c -o $(OUT) $(SOURCE)

mutant:
	$(Q)$(CC) $(LDFLAGS) -o $(OUT) $(filter-out $(WITHOUT),$(C_OBJ) $(LUA_OBJ)) $(WITH) $(LIBS)

test-c: $(C_TEST) ## tests of src/base in C
	@scripts/dev/test_c.sh $(C_TEST)

asan: ## the whole suite under address and undefined-behaviour sanitizers
	@$(MAKE) --no-print-directory VARIANT=asan test

valgrind: deps-dev ## the C tests under valgrind
	@$(MAKE) --no-print-directory VARIANT=release RUNNER="valgrind -q --error-exitcode=99 --leak-check=full" valgrind-c

.PHONY: valgrind-c
valgrind-c: $(C_TEST)
	@RUNNER="$(RUNNER)" scripts/dev/test_c.sh $(C_TEST)

gcstress: ## the whole suite with the garbage collector always on
	@LUNASHARD_GCSTRESS=1 $(MAKE) --no-print-directory test

# Clang has libFuzzer. The parser's library tells it no coverage, so the texts of the corpus are kept as seeds; what it
# finds belongs there too.
FUZZ_SRC := spec/fuzz/fuzz_sql.c src/lua/mod_sql.c src/lua/bind.c src/base/err.c

build/fuzz/sql: $(FUZZ_SRC) Makefile
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CSTD) $(OPT_asan) -fsanitize=fuzzer $(INC_lua) -o $@ $(FUZZ_SRC) $(shell $(PKG) --libs luajit) -lpg_query

fuzz: build/fuzz/sql ## SECONDS (60) of random texts for the parse module, under sanitizers; needs clang
	@mkdir -p build/fuzz/texts
	@build/fuzz/sql -max_total_time=$(or $(SECONDS),60) -timeout=10 -rss_limit_mb=2048 -max_len=40000 -len_control=0 \
		-keep_seed=1 -reduce_inputs=0 -dict=spec/fuzz/sql.dict -artifact_prefix=build/fuzz/ build/fuzz/texts spec/corpus/statements

fuzz-http: ## MINUTES (10) of broken requests at the HTTP server, under sanitizers
	@$(MAKE) --no-print-directory VARIANT=asan all
	@LUNASHARD_FUZZ_SECONDS=$$(($(or $(MINUTES),10) * 60)) build/asan/lunashard test spec/pg/http_fuzz_spec.lua

.PHONY: fuzz fuzz-http

soak-memory: all ## MINUTES (10) of mixed work on a sandbox; fails when memory or descriptors grow
	@scripts/dev/soak_memory.sh $(BIN) $(or $(MINUTES),10)

# The peer of routing in C is C too, and so is the client that shows what the servers give.
$(BUILD)/bench/%: scripts/dev/bench/%.c Makefile $(filter $(BUILD)/base/%,$(C_OBJ))
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CFLAGS) $(INC_io) -MMD -MP $(LDFLAGS) -o $@ $< $(filter %.o,$^) $(shell $(PKG) --libs libpq) -lm

-include $(BUILD)/bench/route_c.d $(BUILD)/bench/bare.d

bench: all $(BUILD)/bench/route_c $(BUILD)/bench/bare ## ours beside its peers, in one table; ONLY=reads32,idle ROUNDS=5 SECONDS=2 LIST=1 MARKDOWN=1
	@$(if $(LIST)$(SHOW),,scripts/dev/deps.sh bench)
	@scripts/dev/bench.sh $(BIN) $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(LIST),--list) $(if $(SHOW),--show) $(if $(MARKDOWN),--markdown)

examples: all ## run every example against a sandbox and check its output, and the tutorials
	@scripts/dev/check_examples.sh $(BIN)
	@$(BIN) test spec/cli/first_hour_spec.lua
	@$(BIN) test spec/cli/how_data_moves_spec.lua

check: ## all of it: lint, tests, sanitizers, examples
	@for target in lint test test-fault asan valgrind gcstress examples; do \
		echo "== $$target"; $(MAKE) --no-print-directory $$target || exit 1; done

# ---- the code itself ----

C_FILES := $(wildcard src/*/*.[ch] spec/c/*.[ch] spec/fuzz/*.c scripts/dev/bench/*.c)

lint: deps-dev format-check ## luacheck, layout, layers, cppcheck
	@luacheck -q .
	@scripts/dev/check_layers.sh
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem -DNDEBUG $(INC_base) -Isrc/io -Isrc/lua src

format: ## lay out the C files
	@clang-format -i $(C_FILES)

format-check: deps-dev # fails when `make format` would change something
	@clang-format --dry-run -Werror $(C_FILES)

annotations: all ## lua/*.d.lua anew, by which editors complete the API
	@$(BIN) run scripts/dev/annotations.lua

docs: all deps-dev $(BUILD)/manual/commands.md ## the reference manual, in build/docs, and that of the commands, commands.md
	@ldoc -q -c config.ld .
	@cp $(BUILD)/manual/commands.md build/docs/commands.md

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F '\t' '{ printf "  %-12s %s\n", $$1, $$2 }'
