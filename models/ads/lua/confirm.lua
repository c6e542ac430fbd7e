-- Give every seen mark its full life. KEYS: marks. ARGV: life in seconds.
for _, key in ipairs(KEYS) do redis.call('SET', key, 's', 'EX', ARGV[1]) end
return #KEYS
