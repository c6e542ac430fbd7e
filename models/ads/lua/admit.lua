-- Reserve one impression for the first offer that its ad's budget still carries:
--     settled + Σ over open minutes of max(0, reserved - settled of it) + cost <= budget
-- KEYS: the buyer's rate counter, then (gate, day) of each offer.
-- ARGV: run id that the caller's connection saw, iat (s), token ttl + skew (s), staleness limit (s),
--       serves a minute (0: not counted), then (cost, budget in force, in micros) of each offer.
-- Returns {n, wait, code…}: n-th offer admitted (0: none; -1: rate limited, wait seconds), one code an offer refused.
--
-- A day hash keeps the sum beside its parts: `held` is never below it. It is exact while `events` is still `held_at`
-- and `oldest`, before which no minute holds anything, is open; settling and closing only make the sum smaller. So what
-- fits beside `held` fits, and before an offer is refused by a `held` that may be too high, the parts are summed anew.
local serves_max = tonumber(ARGV[5])
if serves_max > 0 then
  local served = redis.call('INCR', KEYS[1])
  if served == 1 then redis.call('EXPIRE', KEYS[1], 60) end
  if served > serves_max then return {-1, redis.call('TTL', KEYS[1])} end
end
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local iat, grace = tonumber(ARGV[2]), tonumber(ARGV[3])
local minute = math.floor(iat / 60)
local reserved_name, settled_name = 'M' .. minute, 'S' .. minute -- reserved by serve; settled of it, by the agent

local function is_closed(m, watermark) return ((m + 1) * 60 + grace) * 1000000 <= watermark end
local function over(reserved, settled_of) return math.max(0, reserved - settled_of) end
local function digits(number) return string.format('%.0f', number) end

-- The exact sum and the oldest minute that holds something (else this one), kept in the hash; closed minutes leave it.
local function sum(day, watermark, events)
  local fields = redis.call('HGETALL', day)
  if #fields == 0 then return 0, minute end
  local reserved, settled_of, closed = {}, {}, {}
  for f = 1, #fields, 2 do
    local name = fields[f]
    local kind = string.byte(name)
    if kind == 77 or kind == 83 then -- M, S
      local m = tonumber(string.sub(name, 2))
      if is_closed(m, watermark) then
        closed[#closed + 1] = name
      elseif kind == 77 then
        reserved[m] = tonumber(fields[f + 1])
      else
        settled_of[m] = tonumber(fields[f + 1])
      end
    end
  end
  local held, oldest = 0, minute
  for m, value in pairs(reserved) do
    held = held + over(value, settled_of[m] or 0)
    oldest = math.min(oldest, m)
  end
  if #closed > 0 then redis.call('HDEL', day, unpack(closed, 1, math.min(#closed, 1000))) end
  redis.call('HSET', day, 'held', digits(held), 'held_at', events, 'oldest', oldest)
  redis.call('EXPIRE', day, 259200) -- again whenever a minute has closed
  return held, oldest
end

local answer, watermarks = {0, 0}, {}
for i = 1, (#KEYS - 1) / 2 do
  local gate_key, day = KEYS[2 * i], KEYS[2 * i + 1]
  local watermark = watermarks[gate_key]
  if watermark == nil then -- false: the gate is closed
    local gate = redis.call('HMGET', gate_key, 'run_id', 'watermark_us', 'ticked_us')
    watermark = tonumber(gate[2] or '')
    local ticked = tonumber(gate[3] or '')
    if gate[1] ~= ARGV[1] or not watermark or not ticked or now_us - ticked > ARGV[4] * 1000000
        or is_closed(minute, watermark) then
      watermark = false
    end
    watermarks[gate_key] = watermark
  end
  if not watermark then
    answer[#answer + 1] = 'gate_closed'
  else
    local cost, budget = tonumber(ARGV[4 + 2 * i]), tonumber(ARGV[5 + 2 * i])
    local found = redis.call(
      'HMGET', day, 'settled', 'held', 'held_at', 'oldest', 'events', reserved_name, settled_name)
    local settled, held, oldest = tonumber(found[1] or 0), tonumber(found[2] or ''), tonumber(found[4] or '')
    local events, new = found[5] or '0', not held
    local loose = new or is_closed(oldest, watermark)
    if loose or (events ~= found[3] and settled + held + cost > budget) then
      held, oldest = sum(day, watermark, events)
    end
    if settled + held + cost <= budget then
      local reserved, settled_of = tonumber(found[6] or 0), tonumber(found[7] or 0)
      held = held + over(reserved + cost, settled_of) - over(reserved, settled_of)
      redis.call('HSET', day, reserved_name, digits(reserved + cost), 'held', digits(held))
      if new then -- just summed; the hash may not have existed
        redis.call('HSET', day, 'held_at', events, 'oldest', math.min(minute, oldest))
        redis.call('EXPIRE', day, 259200)
      elseif minute < oldest then
        redis.call('HSET', day, 'oldest', minute)
      end
      answer[1] = i
      return answer
    end
    answer[#answer + 1] = 'budget_exhausted'
  end
end
return answer
