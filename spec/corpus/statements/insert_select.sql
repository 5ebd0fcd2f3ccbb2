INSERT INTO orders (user_id, x) SELECT u.user_id, 1 FROM users u WHERE u.user_id = $1 GROUP BY 1 HAVING count(*) > 1
