WITH d AS (DELETE FROM orders WHERE user_id = 4 RETURNING user_id, id) INSERT INTO users (user_id, n) SELECT user_id, id FROM d
