/* key.c - canonical keys: dispatch by type, hashing, order.  The texts of each
 * type are read in key_text.c. */
#include "key.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "hash.h"
#include "key_text.h"

#define MAX_EXACT_DOUBLE 9007199254740992.0 /* 2^53 */

static const char *const TYPE_NAMES[] = { "any", "int8", "text", "uuid", "date" };

const char *luna_key_type_name(luna_key_type type)
{
    return TYPE_NAMES[type];
}

luna_status luna_key_type_parse(const char *name, luna_key_type *type, luna_err *err)
{
    for (int i = LUNA_KEY_INT8; i <= LUNA_KEY_DATE; i++) {
        if (strcmp(name, TYPE_NAMES[i]) == 0) {
            *type = (luna_key_type)i;
            return LUNA_OK;
        }
    }
    return luna_err_set(err, LUNA_EINVAL, "unknown key type \"%s\" (known: int8, text, uuid, date)",
                        name);
}

/* A number is a key of type int8 and of no other: as text it would depend on how it is printed. */
static luna_status refuse_number(luna_key_type type, const char *shown, luna_err *err)
{
    return luna_err_set(err, LUNA_EINVAL, "routing key %s is a number, not a %s: give it as text",
                        shown, luna_key_type_name(type));
}

luna_status luna_key_from_int64(luna_key *key, luna_key_type type, int64_t value, luna_err *err)
{
    if (type != LUNA_KEY_INT8 && type != LUNA_KEY_ANY) {
        char shown[24];
        snprintf(shown, sizeof(shown), "%lld", (long long)value);
        return refuse_number(type, shown, err);
    }
    key->type = LUNA_KEY_INT8;
    key->number = value;
    return LUNA_OK;
}

luna_status luna_key_from_uint64(luna_key *key, luna_key_type type, uint64_t value, luna_err *err)
{
    if (value > INT64_MAX)
        return luna_err_set(err, LUNA_EINVAL, "routing key %llu is out of range for int8",
                            (unsigned long long)value);
    return luna_key_from_int64(key, type, (int64_t)value, err);
}

/* Apart from the reader, so that printing costs nothing where keys are good. */
static luna_status refuse_double(luna_key_type type, double value, luna_err *err)
{
    char shown[32];
    snprintf(shown, sizeof(shown), fabs(value) > MAX_EXACT_DOUBLE ? "%.17g" : "%.14g", value);
    if (isnan(value))
        return luna_err_set(err, LUNA_ENULLKEY, "routing key is NaN");
    if (type != LUNA_KEY_INT8 && type != LUNA_KEY_ANY)
        return refuse_number(type, shown, err);
    if (isinf(value) || floor(value) != value)
        return luna_err_set(err, LUNA_EINVAL, "routing key %s is not an int8", shown);
    return luna_err_set(err, LUNA_EINVAL,
                        "routing key %s is beyond 2^53, where numbers are no longer exact: "
                        "give it as int64 (9007199254740993LL) or as text",
                        shown);
}

luna_status luna_key_from_double(luna_key *key, luna_key_type type, double value, luna_err *err)
{
    bool is_int8 = type == LUNA_KEY_INT8 || type == LUNA_KEY_ANY;
    if (!is_int8 || !(fabs(value) <= MAX_EXACT_DOUBLE) || floor(value) != value)
        return refuse_double(type, value, err);
    key->type = LUNA_KEY_INT8;
    key->number = (int64_t)value;
    return LUNA_OK;
}

luna_status luna_key_from_text(luna_key *key, luna_key_type type, const char *text, size_t len,
                               luna_err *err)
{
    char shown[LUNA_KEY_QUOTE_MAX];
    luna_status st = LUNA_OK;

    key->type = type == LUNA_KEY_ANY ? LUNA_KEY_TEXT : type;
    switch (key->type) {
    case LUNA_KEY_INT8: st = luna_key_read_int8(text, len, &key->number); break;
    case LUNA_KEY_DATE: st = luna_key_read_date(text, len, &key->number); break;
    case LUNA_KEY_UUID: st = luna_key_read_uuid(text, len, key->uuid); break;
    case LUNA_KEY_TEXT:
    case LUNA_KEY_ANY:
        key->text = text;
        key->len = len;
        if (luna_key_is_ascii(text, len))
            break;
        if (memchr(text, '\0', len) != NULL)
            return luna_err_set(err, LUNA_EINVAL, "routing key %s contains a NUL byte",
                                luna_key_quote(shown, text, len));
        if (!luna_key_is_utf8(text, len))
            return luna_err_set(err, LUNA_EINVAL, "routing key %s is not valid UTF-8",
                                luna_key_quote(shown, text, len));
        break;
    }
    if (st == LUNA_ETOOLARGE)
        return luna_err_set(err, LUNA_EINVAL, "routing key %s is out of range for %s",
                            luna_key_quote(shown, text, len), luna_key_type_name(key->type));
    if (st != LUNA_OK)
        return luna_err_set(err, LUNA_EINVAL, "routing key %s is not %s %s",
                            luna_key_quote(shown, text, len),
                            key->type == LUNA_KEY_INT8 ? "an" : "a", luna_key_type_name(key->type));
    return LUNA_OK;
}

int luna_key_compare(const luna_key *a, const luna_key *b)
{
    if (a->type == LUNA_KEY_UUID)
        return memcmp(a->uuid, b->uuid, sizeof(a->uuid));
    if (a->type != LUNA_KEY_TEXT)
        return (a->number > b->number) - (a->number < b->number);
    size_t common = a->len < b->len ? a->len : b->len;
    int order = common == 0 ? 0 : memcmp(a->text, b->text, common);
    return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

uint64_t luna_key_hash(const luna_key *key)
{
    if (key->type == LUNA_KEY_TEXT)
        return luna_hash_bytes(key->text, key->len, LUNA_PARTITION_SEED);
    if (key->type == LUNA_KEY_UUID)
        return luna_hash_bytes(key->uuid, sizeof(key->uuid), LUNA_PARTITION_SEED);
    return luna_hash_partition_int8(key->number);
}

uint64_t luna_key_row_hash(const luna_key *keys, size_t n)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < n; i++)
        hash = luna_hash_combine(hash, luna_key_hash(&keys[i]));
    return hash;
}

size_t luna_key_format(const luna_key *key, char *buf, size_t cap)
{
    switch (key->type) {
    case LUNA_KEY_TEXT:
    case LUNA_KEY_ANY: return key->len;
    case LUNA_KEY_DATE: return luna_key_write_date(key->number, buf, cap);
    case LUNA_KEY_UUID: return luna_key_write_uuid(key->uuid, buf, cap);
    case LUNA_KEY_INT8: break;
    }
    return (size_t)snprintf(buf, cap, "%lld", (long long)key->number);
}
