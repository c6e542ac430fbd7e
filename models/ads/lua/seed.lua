-- Close a shard's gate and leave a mark that only this server, unflushed, will show when seeding is done.
-- KEYS: the gate. ARGV: run id that the caller's connection sees, seeding mark.
redis.call('HDEL', KEYS[1], 'epoch', 'run_id')
redis.call('HSET', KEYS[1], 'seeding', ARGV[1] .. ':' .. ARGV[2])
return 1
