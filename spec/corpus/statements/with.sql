WITH a AS (SELECT $1::bigint AS id), b(k) AS MATERIALIZED (SELECT * FROM a) SELECT * FROM users, b WHERE user_id = b.k
