UPDATE users SET user_id = user_id + 1 WHERE user_id IN (1, 2)
