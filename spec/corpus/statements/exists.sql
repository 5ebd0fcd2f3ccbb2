SELECT (SELECT max(x) FROM orders o WHERE o.user_id = u.user_id) FROM users u WHERE user_id = $1 AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = u.user_id)
