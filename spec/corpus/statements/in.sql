SELECT name FROM users WHERE user_id IN (1, $2, (3), -4, 9007199254740993) AND name = $1 ORDER BY name LIMIT 3
