SELECT count(*) FROM users u JOIN orders o USING (user_id) AS j LEFT JOIN countries c ON c.id = o.c FULL JOIN logs l ON l.name = c.name WHERE j.user_id = 5
