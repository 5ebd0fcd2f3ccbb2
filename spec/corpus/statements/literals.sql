SELECT * FROM logs WHERE name = 'a'::varchar AND name <> B'101' AND name IS NOT DISTINCT FROM $1::text COLLATE "C"
