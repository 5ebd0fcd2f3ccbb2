/* /* shard_key: 1 */ */ SELECT $$-- shard_key: 2$$ /* shard_key : 3*/ FROM users
