DELETE FROM users /* shard: s2 */ WHERE x = '/* shard: s1 */'
