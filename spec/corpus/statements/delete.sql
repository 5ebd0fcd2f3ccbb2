DELETE FROM users USING orders o LEFT JOIN countries c ON c.id = o.c WHERE users.user_id = 1 AND o.user_id = users.user_id
