-- The gate's rule in its plainest form: every field of the day is summed at every offer. The yardstick of test_gate_sum.py.
-- KEYS, ARGV and the answer are those of models/ads/lua/admit.lua.
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local serves_max = tonumber(ARGV[5])
if serves_max > 0 then
  local served = redis.call('INCR', KEYS[1])
  if served == 1 then redis.call('EXPIRE', KEYS[1], 60) end
  if served > serves_max then return {-1, redis.call('TTL', KEYS[1])} end
end
local iat, grace = tonumber(ARGV[2]), tonumber(ARGV[3])
local minute = math.floor(iat / 60)
local answer = {0, 0}
for i = 1, (#KEYS - 1) / 2 do
  local day = KEYS[2 * i + 1]
  local gate = redis.call('HMGET', KEYS[2 * i], 'run_id', 'watermark_us', 'ticked_us')
  local watermark = tonumber(gate[2] or '')
  local ticked = tonumber(gate[3] or '')
  if gate[1] ~= ARGV[1] or not watermark or not ticked or now_us - ticked > ARGV[4] * 1000000
      or ((minute + 1) * 60 + grace) * 1000000 <= watermark then
    answer[#answer + 1] = 'gate_closed'
  else
    local fields = redis.call('HGETALL', day)
    local settled, reserved, settled_of, closed = 0, {}, {}, {}
    for f = 1, #fields, 2 do
      local name, value = fields[f], tonumber(fields[f + 1])
      local kind = string.byte(name)
      if name == 'settled' then
        settled = value
      elseif kind == 77 or kind == 83 then -- M<minute>: reserved by serve; S<minute>: settled, by the agent
        local m = tonumber(string.sub(name, 2))
        if ((m + 1) * 60 + grace) * 1000000 <= watermark then
          closed[#closed + 1] = name
        elseif kind == 77 then
          reserved[m] = value
        else
          settled_of[m] = value
        end
      end
    end
    local held = 0
    for m, value in pairs(reserved) do
      local open = value - (settled_of[m] or 0)
      if open > 0 then held = held + open end
    end
    if #closed > 0 then redis.call('HDEL', day, unpack(closed, 1, math.min(#closed, 1000))) end
    local cost, budget = tonumber(ARGV[4 + 2 * i]), tonumber(ARGV[5 + 2 * i])
    if settled + held + cost <= budget then
      redis.call('HINCRBY', day, 'M' .. minute, cost)
      redis.call('EXPIRE', day, 259200)
      answer[1] = i
      return answer
    end
    answer[#answer + 1] = 'budget_exhausted'
  end
end
return answer
