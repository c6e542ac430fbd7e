-- Move a shard's absolute counters forward; the watermark last.
-- KEYS: the shard's gate; the prefix of its day hashes.
-- ARGV: run id that the caller's connection sees; msgpack {watermark_us or false, ticked, entries}; an entry is
--       {suffix, events, impressions, clicks, settled, {minute, settled_of, …}}.
-- Returns {epoch, run id} that the gate holds, and the caller's run id.
local message = cmsgpack.unpack(ARGV[2])
for _, e in ipairs(message[3]) do
  local key, minutes = KEYS[2] .. e[1], e[6]
  local names = {'events'}
  for i = 1, #minutes, 2 do names[#names + 1] = 'S' .. minutes[i] end
  local known = redis.call('HMGET', key, unpack(names))
  if not known[1] or tonumber(known[1]) < e[2] then
    local fields = {'events', e[2], 'impressions', e[3], 'clicks', e[4], 'settled', string.format('%.0f', e[5])}
    local back = false
    for n = 2, #names do
      local before, settled_of = tonumber(known[n] or -1), minutes[2 * n - 2]
      if before ~= settled_of then -- of an ad's open minutes few have moved
        fields[#fields + 1] = names[n]
        fields[#fields + 1] = string.format('%.0f', settled_of)
      end
      back = back or before > settled_of
    end
    redis.call('HSET', key, unpack(fields))
    if back then redis.call('HDEL', key, 'held') end -- it may be too low now: admit.lua sums anew
    if not known[1] then redis.call('EXPIRE', key, 259200) end
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
