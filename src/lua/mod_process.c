/* mod_process.c - "lunashard.core.process": child processes.  Layer: lua. */
/*** Child processes, as `lunashard.process` uses them.
@module lunashard.core.process */
#include <string.h>
#include <sys/wait.h>

#include "bind.h"
#include "process.h"
#include "runtime.h"

#define PROCESS_TYPE "lunashard.process"
#define MAX_OUTPUT 1048576

static luna_process *check_process(lua_State *L, int idx)
{
    return luaL_checkudata(L, idx, PROCESS_TYPE);
}

/* The list of strings in field `name`, NULL-terminated, in a userdata left on
 * the stack; NULL when the field is absent. */
static const char **check_strings(lua_State *L, int idx, const char *name)
{
    lua_getfield(L, idx, name);
    if (lua_isnil(L, -1))
        return NULL;
    if (!lua_istable(L, -1))
        luaL_error(L, "spawn: %s must be a list of strings", name);
    size_t n = lua_objlen(L, -1);
    const char **list = lua_newuserdata(L, (n + 1) * sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        lua_rawgeti(L, -2, (int)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING) /* tostring here would leave nobody owning the string */
            luaL_error(L, "spawn: %s[%d] must be a string", name, (int)i + 1);
        list[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    list[n] = NULL;
    return list;
}

static const char *check_field(lua_State *L, int idx, const char *name, size_t *len)
{
    lua_getfield(L, idx, name);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "spawn: %s must be a string", name);
    const char *value = lua_tolstring(L, -1, len);
    lua_pop(L, 1); /* the options table keeps it alive */
    return value;
}

static void check_output(lua_State *L, int idx, luna_process_options *options, int which)
{
    static const char *const fields[] = { "stdout", "stderr" };
    static const char *const files[] = { "stdout_file", "stderr_file" };
    static const char *const modes[] = { "discard", "capture", "inherit", NULL };
    options->file[which] = check_field(L, idx, files[which], NULL);
    if (options->file[which] != NULL) {
        options->output[which] = LUNA_PROCESS_FILE;
        return;
    }
    const char *mode = check_field(L, idx, fields[which], NULL);
    options->output[which] = LUNA_PROCESS_CAPTURE;
    if (mode == NULL)
        return;
    for (int i = 0; modes[i] != NULL; i++)
        if (strcmp(mode, modes[i]) == 0) {
            options->output[which] = (luna_process_output)i;
            return;
        }
    luaL_error(L, "spawn: %s is \"%s\"; expected discard, capture or inherit", fields[which], mode);
}

static const char *const known_options[] = {
    "argv",        "env",         "cwd",        "user",          "stdin",      "stdout", "stderr",
    "stdout_file", "stderr_file", "max_output", "inherit_stdin", "foreground", NULL
};

static void check_option_names(lua_State *L, int idx)
{
    lua_pushnil(L);
    while (lua_next(L, idx) != 0) {
        int known = 0;
        for (int i = 0; known_options[i] != NULL && lua_type(L, -2) == LUA_TSTRING; i++)
            known |= strcmp(lua_tostring(L, -2), known_options[i]) == 0;
        if (!known)
            luaL_error(L, "spawn: unknown option %s",
                       lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(not a string)");
        lua_pop(L, 1);
    }
}

/*** Start a child process.
@function spawn
@tparam table options `argv` (list; the first is looked up in PATH), `env` (list of `NAME=value`, or
`NAME` to remove), `cwd`, `user` (takes root), `stdin` (bytes; none by default), `inherit_stdin`,
`stdout` and `stderr` (`capture`, the default, `inherit` or `discard`), `stdout_file`, `stderr_file`
(appended to), `foreground`, `max_output` (bytes kept of each stream, 1 MiB)
@treturn[1] lunashard.process
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when the program could not be run */
static int process_spawn(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    check_option_names(L, 1);
    luna_process_options options = { .max_output = MAX_OUTPUT };
    options.argv = check_strings(L, 1, "argv");
    luaL_argcheck(L, options.argv != NULL && options.argv[0] != NULL, 1, "argv is required");
    options.env = check_strings(L, 1, "env");
    options.cwd = check_field(L, 1, "cwd", NULL);
    options.user = check_field(L, 1, "user", NULL);
    options.input = check_field(L, 1, "stdin", &options.input_len);
    lua_getfield(L, 1, "inherit_stdin");
    options.inherit_input = lua_toboolean(L, -1);
    lua_getfield(L, 1, "foreground");
    options.foreground = lua_toboolean(L, -1);
    lua_getfield(L, 1, "max_output");
    if (lua_isnumber(L, -1) && lua_tonumber(L, -1) >= 0)
        options.max_output = (size_t)lua_tonumber(L, -1);
    for (int i = 0; i < 2; i++)
        check_output(L, 1, &options, i);

    luna_process *process = lua_newuserdata(L, sizeof(*process));
    *process = (luna_process){ .pid = -1 };
    luaL_getmetatable(L, PROCESS_TYPE);
    lua_setmetatable(L, -2);
    luna_err err;
    if (luna_process_start(process, &luna_rt.loop, &options, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    return 1;
}

/*** Wait until the child ended and its output was read. Yields; called through `lunashard.process`.
@function process:wait
@tparam[opt] number deadline on the clock of `lunashard.now`
@treturn lunashard.process the same
@treturn boolean false when the deadline came first */
static int process_wait(lua_State *L)
{
    luna_process *process = check_process(L, 1);
    double deadline = luaL_optnumber(L, 2, 0);
    if (process->loop == NULL)
        return luaL_error(L, "wait: the process handle is closed");
    if (process->wait.state != LUNA_OP_IDLE)
        return luaL_error(L, "wait: another task waits for this process");
    luna_task_check(L, "wait");
    lua_settop(L, 1);
    luna_process_wait_start(process, deadline, luna_task_wake);
    return luna_task_park(L, &process->wait);
}

/*** How the child is.
@function process:status
@treturn string `running` or `exited`
@treturn ?number exit code
@treturn ?number the signal that ended it */
static int process_status(lua_State *L)
{
    const luna_process *process = check_process(L, 1);
    lua_pushstring(L, process->finished ? "exited" : "running");
    if (!process->finished)
        return 1;
    if (WIFSIGNALED(process->wait_state)) {
        lua_pushnil(L);
        lua_pushinteger(L, WTERMSIG(process->wait_state));
    } else {
        lua_pushinteger(L, WEXITSTATUS(process->wait_state));
        lua_pushnil(L);
    }
    return 3;
}

/*** What was captured so far.
@function process:output
@treturn string stdout
@treturn string stderr
@treturn boolean whether one of them went beyond `max_output` and was cut */
static int process_output(lua_State *L)
{
    const luna_process *process = check_process(L, 1);
    for (int i = 0; i < 2; i++) {
        const luna_buf *buf = &process->pipe[i].buf;
        lua_pushlstring(L, buf->data != NULL ? buf->data : "", buf->len);
    }
    lua_pushboolean(L, process->pipe[0].truncated || process->pipe[1].truncated);
    return 3;
}

/*** The child's process id.
@function process:pid
@treturn number */
static int process_pid(lua_State *L)
{
    lua_pushinteger(L, check_process(L, 1)->pid);
    return 1;
}

/*** Send a signal. Does nothing when the child has ended.
@function process:signal
@tparam number signal
@tparam[opt=false] boolean group also to everything the child started */
static int process_signal(lua_State *L)
{
    luna_process *process = check_process(L, 1);
    int signal = luaL_checkint(L, 2);
    luna_process_signal(process, signal, lua_toboolean(L, 3));
    return 0;
}

/*** Forget the child; kills it, and what it started, when it still runs.
@function process:close */
static int process_close(lua_State *L)
{
    luna_process *process = check_process(L, 1);
    if (process->wait.state != LUNA_OP_IDLE)
        return luaL_error(L, "close: a task waits for this process");
    luna_process_close(process);
    return 0;
}

static int process_gc(lua_State *L)
{
    luna_process_close(check_process(L, 1));
    return 0;
}

int luaopen_lunashard_core_process(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "wait", process_wait }, { "status", process_status }, { "output", process_output },
        { "pid", process_pid },   { "signal", process_signal }, { "close", process_close },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", process_gc },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "spawn", process_spawn },
        { NULL, NULL },
    };
    luna_bind_type(L, PROCESS_TYPE, methods, meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
