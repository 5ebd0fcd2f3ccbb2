SELECT * FROM users u, LATERAL (SELECT * FROM orders o WHERE o.user_id = u.user_id ORDER BY at DESC LIMIT 3) l(a, b) WHERE u.user_id = $1
