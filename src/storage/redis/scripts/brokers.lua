#!lua name=weir_brokers

-- Who is alive. KEYS: a broker's hash. A broker that does not renew in time is gone.

-- ARGS: the new incarnation; the incarnation it may replace ('' = none); time to live in ms; fields and values in turn.
-- Returns nothing when registered; else the incarnation, heartbeat, address and process of the broker that is there.
local function register(keys, args)
  local there = redis.call('HGET', keys[1], 'incarnation')
  if there and there ~= args[1] and there ~= args[2] then
    return redis.call('HMGET', keys[1], 'incarnation', 'heartbeat', 'address', 'process')
  end
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], 'incarnation', args[1], unpack(args, 4))
  redis.call('PEXPIRE', keys[1], args[3])
  return nil
end

-- ARGS: incarnation, time to live in ms, heartbeat. Returns 1 when renewed, 0 when another broker is there, -1 when none is.
local function renew(keys, args)
  local there = redis.call('HGET', keys[1], 'incarnation')
  if there ~= args[1] then
    return there and 0 or -1
  end
  redis.call('HSET', keys[1], 'heartbeat', args[3])
  redis.call('PEXPIRE', keys[1], args[2])
  return 1
end

-- ARGS: incarnation. Takes the broker away if it is still the one that is there.
local function leave(keys, args)
  if redis.call('HGET', keys[1], 'incarnation') ~= args[1] then
    return 0
  end
  return redis.call('DEL', keys[1])
end

redis.register_function { function_name = 'weir_broker_register_v1', callback = register, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_broker_renew_v1', callback = renew, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_broker_leave_v1', callback = leave, flags = { 'allow-oom' } }
