SELECT * FROM users WHERE user_id BETWEEN $1 AND 20 AND user_id >= 3 AND 9 > user_id
