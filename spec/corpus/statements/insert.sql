INSERT INTO users AS u (user_id, name, at) VALUES ($1, 'O''Brien', DEFAULT)
