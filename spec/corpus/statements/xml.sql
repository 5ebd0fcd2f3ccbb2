SELECT xmlelement(name a, xmlattributes(user_id AS b)), CASE user_id WHEN 1 THEN 2 END, (u).x.y[1:2], u.* FROM users u WHERE user_id = 1
