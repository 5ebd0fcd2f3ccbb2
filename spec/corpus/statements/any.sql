SELECT * FROM users WHERE user_id = ANY ($1::bigint[])
