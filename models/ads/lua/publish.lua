-- Move a shard's absolute counters forward; the watermark last.
-- KEYS: the shard's gate; the prefix of its day hashes.
-- ARGV: run id that the caller's connection sees; msgpack {watermark_us or false, ticked, entries}; an entry is
--       {suffix, events, impressions, clicks, settled, {minute, settled_of, …}}.
-- Returns {epoch, run id} that the gate holds, and the caller's run id.
local message = cmsgpack.unpack(ARGV[2])
for _, e in ipairs(message[3]) do
  local key = KEYS[2] .. e[1]
  local known = redis.call('HGET', key, 'events')
  if not known or tonumber(known) < e[2] then
    local minutes = e[6]
    local fields = {'events', e[2], 'impressions', e[3], 'clicks', e[4], 'settled', string.format('%.0f', e[5])}
    for i = 1, #minutes, 2 do
      fields[#fields + 1] = 'S' .. minutes[i]
      fields[#fields + 1] = string.format('%.0f', minutes[i + 1])
    end
    redis.call('HSET', key, unpack(fields))
    if not known then redis.call('EXPIRE', key, 259200) end
  end
end
local old = redis.call('HMGET', KEYS[1], 'watermark_us', 'epoch', 'run_id')
if message[1] and (not old[1] or tonumber(old[1]) < message[1]) then
  redis.call('HSET', KEYS[1], 'watermark_us', string.format('%.0f', message[1]))
end
if message[2] then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'ticked_us', string.format('%.0f', time[1] * 1000000 + time[2]))
end
return {old[2], old[3], ARGV[1]}
