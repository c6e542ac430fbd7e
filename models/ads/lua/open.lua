-- Open a shard's gate, unless Redis has lost something since the caller began to seed it.
-- KEYS: the gate. ARGV: run id that the caller's connection sees now, seeding mark, new epoch.
-- Returns 1 when open, 0 when the seeding has to begin again.
local seeding = redis.call('HGET', KEYS[1], 'seeding')
if seeding ~= ARGV[1] .. ':' .. ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'seeding')
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'run_id', ARGV[1])
return 1
