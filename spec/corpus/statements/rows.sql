INSERT INTO users (x, user_id) VALUES (f(1, 2), $1), ($2, 7), ('),(', $3) ON CONFLICT (user_id) DO UPDATE SET x = excluded.x RETURNING x
