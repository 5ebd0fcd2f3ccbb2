/* mod_decimal.c - lunashard.core.decimal: exact decimals for aggregates.  Layer: lua. */
/*** Exact decimals for aggregates.
@module lunashard.core.decimal */
#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "bind.h"
#include "decimal.h"

#define DECIMAL_TYPE "lunashard.decimal"

typedef struct decimal_box {
    luna_decimal value;
    luna_decimal operand; /* the other side of an operation, kept for its memory */
    luna_buf text;
} decimal_box;

static decimal_box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, DECIMAL_TYPE);
}

static luna_status set_number(luna_decimal *d, double v, luna_err *err)
{
    if (fabs(v) < 9007199254740992.0) {
        luna_decimal_set(d, (uint64_t)fabs(v), v < 0);
        return LUNA_OK;
    }
    char text[400]; /* the largest double has 309 digits */
    int n = snprintf(text, sizeof(text), "%.0f", v);
    return luna_decimal_parse(d, text, (size_t)n, err);
}

/* Read the value at `idx` into `to`.  Raises on a type that is no number; a text
 * that is none is a failure.  Allocates only inside `to`, which the box owns. */
static luna_status read_value(lua_State *L, int idx, luna_decimal *to, luna_err *err)
{
    const decimal_box *box = luaL_testudata(L, idx, DECIMAL_TYPE);
    if (box != NULL) {
        luna_decimal_copy(to, &box->value);
        return LUNA_OK;
    }
    int64_t v;
    int is_unsigned;
    if (luna_to_int64(L, idx, &v, &is_unsigned)) {
        bool negative = !is_unsigned && v < 0;
        luna_decimal_set(to, negative ? -(uint64_t)v : (uint64_t)v, negative);
        return LUNA_OK;
    }
    if (lua_type(L, idx) == LUA_TSTRING) {
        size_t len;
        const char *text = lua_tolstring(L, idx, &len);
        return luna_decimal_parse(to, text, len, err);
    }
    double number = luaL_checknumber(L, idx);
    luaL_argcheck(L, floor(number) == number && !isinf(number), idx,
                  "a fractional number is not exact: give its text");
    return set_number(to, number, err);
}

/*** A new exact decimal.
@function new
@param[opt=0] value text of a numeric, whole number, int64/uint64 cdata or decimal
@treturn[1] Decimal
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when a text is not a number */
static int decimal_new(lua_State *L)
{
    bool has_value = !lua_isnoneornil(L, 1);
    decimal_box *box = lua_newuserdata(L, sizeof(*box));
    memset(box, 0, sizeof(*box));
    luaL_getmetatable(L, DECIMAL_TYPE);
    lua_setmetatable(L, -2);
    luna_err err;
    if (has_value && read_value(L, 1, &box->value, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    return 1;
}

/*** Add a value.
@function Decimal:add
@param value as for `new`
@treturn[1] Decimal itself
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when a text is not a number; nothing was added */
static int decimal_add(lua_State *L)
{
    decimal_box *box = check_box(L);
    luna_err err;
    if (read_value(L, 2, &box->operand, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    luna_decimal_add(&box->value, &box->operand);
    lua_settop(L, 1);
    return 1;
}

/*** Subtract a value.
@function Decimal:sub
@param value as for `new`
@treturn[1] Decimal itself
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when a text is not a number; nothing was subtracted */
static int decimal_sub(lua_State *L)
{
    decimal_box *box = check_box(L);
    luna_err err;
    if (read_value(L, 2, &box->operand, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    luna_decimal_sub(&box->value, &box->operand);
    lua_settop(L, 1);
    return 1;
}

/*** Compare by value, in the server's order: NaN is above everything and equals itself.
@function Decimal:compare
@param value as for `new`
@treturn[1] number -1, 0 or 1
@treturn[2] nil
@treturn[2] lunashard.error `INVALID` when a text is not a number */
static int decimal_compare(lua_State *L)
{
    decimal_box *box = check_box(L);
    luna_err err;
    if (read_value(L, 2, &box->operand, &err) != LUNA_OK)
        return luna_push_err(L, &err);
    lua_pushinteger(L, luna_decimal_compare(&box->value, &box->operand));
    return 1;
}

static int push_text(lua_State *L, decimal_box *box, const luna_decimal *d)
{
    luna_buf_clear(&box->text);
    luna_decimal_write(d, &box->text);
    lua_pushlstring(L, box->text.data, box->text.len);
    return 1;
}

/*** The quotient by a count, with the digits that the server's avg() prints.
@function Decimal:div
@param count a whole number above 0, or int64 cdata
@treturn string */
static int decimal_div(lua_State *L)
{
    decimal_box *box = check_box(L);
    int64_t count = 0;
    int is_unsigned = 0;
    if (!luna_to_int64(L, 2, &count, &is_unsigned)) {
        double number = luaL_checknumber(L, 2);
        luaL_argcheck(L, number >= 1 && number <= 9007199254740992.0 && floor(number) == number, 2,
                      "a count must be a whole number above 0");
        count = (int64_t)number;
    }
    luaL_argcheck(L, is_unsigned ? count != 0 : count > 0, 2, "a count must be above 0");
    luna_decimal_copy(&box->operand, &box->value);
    luna_decimal_divide(&box->operand, (uint64_t)count);
    return push_text(L, box, &box->operand);
}

/*** As a Lua value, exactly.
@function Decimal:value
@treturn number|cdata|string a number when whole and within 2^53, int64 cdata when it fits,
  otherwise the text */
static int decimal_value(lua_State *L)
{
    decimal_box *box = check_box(L);
    int64_t v;
    if (!luna_decimal_to_int64(&box->value, &v))
        return push_text(L, box, &box->value);
    luna_push_int64(L, v);
    return 1;
}

/*** The text that the server prints for it.
@function Decimal:__tostring
@treturn string */
static int decimal_tostring(lua_State *L)
{
    decimal_box *box = check_box(L);
    return push_text(L, box, &box->value);
}

static int decimal_gc(lua_State *L)
{
    decimal_box *box = check_box(L);
    luna_decimal_deinit(&box->value);
    luna_decimal_deinit(&box->operand);
    luna_buf_deinit(&box->text);
    return 0;
}

int luaopen_lunashard_core_decimal(lua_State *L)
{
    static const luaL_Reg methods[] = {
        { "add", decimal_add }, { "sub", decimal_sub },     { "compare", decimal_compare },
        { "div", decimal_div }, { "value", decimal_value }, { "tostring", decimal_tostring },
        { NULL, NULL },
    };
    static const luaL_Reg meta[] = {
        { "__gc", decimal_gc },
        { "__tostring", decimal_tostring },
        { NULL, NULL },
    };
    static const luaL_Reg functions[] = {
        { "new", decimal_new },
        { NULL, NULL },
    };
    luna_bind_type(L, DECIMAL_TYPE, methods, meta);
    lua_newtable(L);
    luaL_register(L, NULL, functions);
    return 1;
}
