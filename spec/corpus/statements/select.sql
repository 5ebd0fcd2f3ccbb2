SELECT * FROM users AS u WHERE u.user_id = $1::bigint AND x > -3
