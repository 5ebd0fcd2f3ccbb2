SELECT "u"."user_id" FROM "users" "u" WHERE "u"."user_id" = '42'::int8 AND n = E'\'' || U&'\0041' || $a$ $$ $a$
