SELECT k.id, n FROM users JOIN unnest($1::bigint[]) WITH ORDINALITY AS k(id, n) ON user_id = k.id, ROWS FROM (f(1), g(2)) AS r
