/* key_text.h - the texts of key types, read as PostgreSQL 15 reads them.  Layer: base.
 *
 * Shared by key.c and its tests only.  Pure functions.  Readers return LUNA_EINVAL
 * for what is not of the type and LUNA_ETOOLARGE for what is out of its range; their
 * output is then undefined. */
#ifndef LUNA_BASE_KEY_TEXT_H
#define LUNA_BASE_KEY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* Blanks around, a sign, leading zeros: "42", " +042 ". */
LUNA_MUSTCHECK luna_status luna_key_read_int8(const char *text, size_t len, int64_t *value);

/* Any case, with or without braces, hyphens after any group of four digits or none. */
LUNA_MUSTCHECK luna_status luna_key_read_uuid(const char *text, size_t len, unsigned char uuid[16]);

/* YYYY-MM-DD alone (PostgreSQL reads more, but what it reads depends on DateStyle);
 * 0001-01-01 to 5874897-12-31, as days since 2000-01-01. */
LUNA_MUSTCHECK luna_status luna_key_read_date(const char *text, size_t len, int64_t *days);

size_t luna_key_write_uuid(const unsigned char uuid[16], char *buf, size_t cap);
size_t luna_key_write_date(int64_t days, char *buf, size_t cap);

/* Is it ASCII without a NUL?  Quick, for what most keys are. */
bool luna_key_is_ascii(const char *text, size_t len);

bool luna_key_is_utf8(const char *text, size_t len);

/* A key as messages show it: quoted, other than printable ASCII as '?', cut after 40 bytes. */
#define LUNA_KEY_QUOTE_MAX 48
const char *luna_key_quote(char buf[LUNA_KEY_QUOTE_MAX], const char *text, size_t len);
#endif
