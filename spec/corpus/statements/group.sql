SELECT user_id, count(*) OVER w FROM (SELECT user_id, grouping(x) FROM users GROUP BY ROLLUP (user_id, x)) s WHERE user_id = 1 WINDOW w AS (PARTITION BY user_id)
