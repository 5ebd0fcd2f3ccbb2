/* shard_key: 42 */ SELECT * FROM users -- shard_key: 42
