EXPLAIN (ANALYZE, COSTS off) UPDATE users SET x = 1 WHERE user_id = $1
