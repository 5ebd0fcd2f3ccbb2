SELECT * FROM users WHERE (user_id = 1 AND x) OR (user_id = $1 AND y IS NULL)
