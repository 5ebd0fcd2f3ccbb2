WITH RECURSIVE t(id, user_id) AS (SELECT id, user_id FROM orders WHERE user_id = $1 UNION ALL SELECT o.id, o.user_id FROM orders o JOIN t ON o.parent = t.id AND o.user_id = t.user_id) SELECT * FROM t
