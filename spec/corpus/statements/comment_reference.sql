INSERT INTO countries (id, name) VALUES (1, 'a'), ( /* shard_key: 1 */ 2, 'b')
