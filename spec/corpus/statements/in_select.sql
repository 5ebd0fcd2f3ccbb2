SELECT * FROM users WHERE user_id = 3 AND user_id IN (SELECT user_id FROM orders) AND (user_id, x) IN (VALUES (1, 2))
