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
LIBS        = $(shell $(PKG) --libs luajit libpq libcares) -lev -lm

# The layers are kept apart by what each may include.
INC_base := -Isrc/base
INC_io    = $(INC_base) -Isrc/io $(PQ_CFLAGS) $(ARES_CFLAGS)
INC_lua   = $(INC_base) -Isrc/io -Isrc/lua $(PQ_CFLAGS) $(LUA_CFLAGS)
INC_app   = $(INC_lua) -Isrc/app

C_SRC   := $(wildcard src/*/*.c)
LUA_SRC := $(shell find lua -name '*.lua')
C_OBJ   := $(C_SRC:src/%.c=$(BUILD)/%.o)
LUA_OBJ := $(LUA_SRC:lua/%.lua=$(BUILD)/lua/%.o)
BIN     := $(BUILD)/lunashard

Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' $(1) $(2))

.PHONY: all
all: $(BIN)

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

-include $(C_OBJ:.o=.d)
