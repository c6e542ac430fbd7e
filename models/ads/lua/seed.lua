-- Close a shard's gate and leave a mark that only this server, unflushed, will show when seeding is done.
-- KEYS: the gate. ARGV: run id that the caller's connection sees, seeding mark, epoch that the caller saw ('': none).
-- Returns 0 when the gate has another epoch by now: somebody else has opened it.
if (redis.call('HGET', KEYS[1], 'epoch') or '') ~= ARGV[3] then return 0 end
redis.call('HDEL', KEYS[1], 'epoch', 'run_id')
redis.call('HSET', KEYS[1], 'seeding', ARGV[1] .. ':' .. ARGV[2])
return 1
