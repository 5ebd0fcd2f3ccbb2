UPDATE users u SET (x, y) = (SELECT 1, 2), z[1] = o.z FROM orders o WHERE o.user_id = u.user_id AND u.user_id = $1
