SELECT user_id FROM users WHERE user_id = 1 UNION ALL (SELECT user_id FROM orders WHERE user_id = 1 EXCEPT SELECT 2) ORDER BY 1
