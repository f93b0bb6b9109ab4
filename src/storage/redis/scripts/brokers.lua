#!lua name=weir_brokers

-- Who is alive. KEYS: a broker's hash, which expires unless it is renewed; the hash of all brokers:
--   generation   counts comings and goings, from 0 on
--   live:<node>  <generation it came with> <incarnation> <what others must know of it>
--   left:<node>  the generation that it left with
--   floor        the newest generation of those `left` that were forgotten
-- Leader epochs are generations (src/cluster/view.rs), so a generation is never given twice.

local MOST_LEFT = 64

-- above: the newest generation that the caller knows, in case Redis has lost it ('' = none).
local function next_generation(brokers, above)
  local stored = tonumber(redis.call('HGET', brokers, 'generation') or '-1')
  local text = string.format('%d', math.max(stored, tonumber(above) or -1) + 1)
  redis.call('HSET', brokers, 'generation', text)
  redis.call('PUBLISH', brokers, text)
  return text
end

local function incarnation_of(live)
  return live and string.match(live, '^%d+ (%S+) ')
end

local function forget_oldest_left(brokers)
  local all, left = redis.call('HGETALL', brokers), {}
  for at = 1, #all, 2 do
    if string.sub(all[at], 1, 5) == 'left:' then left[#left + 1] = { all[at], tonumber(all[at + 1]) } end
  end
  if #left <= MOST_LEFT then return end
  table.sort(left, function(one, other) return one[2] < other[2] end)
  local floor = tonumber(redis.call('HGET', brokers, 'floor') or '0')
  for place = 1, #left - MOST_LEFT do
    floor = math.max(floor, left[place][2])
    redis.call('HDEL', brokers, left[place][1])
  end
  redis.call('HSET', brokers, 'floor', string.format('%d', floor))
end

local function bury(brokers, node)
  redis.call('HDEL', brokers, 'live:' .. node)
  redis.call('HSET', brokers, 'left:' .. node, next_generation(brokers, ''))
  forget_oldest_left(brokers)
end

-- ARGS: node id; the new incarnation; the incarnation it may replace ('' = none); time to live in ms; a generation to come
-- above if it comes anew; 'anew' to come anew in any case; what others must know of it; fields and values in turn.
-- Returns nothing when registered; else the incarnation, heartbeat, address and process of the broker that is there.
local function register(keys, args)
  local node, incarnation = args[1], args[2]
  local there = redis.call('HGET', keys[1], 'incarnation')
  if there and there ~= incarnation and there ~= args[3] then
    return redis.call('HMGET', keys[1], 'incarnation', 'heartbeat', 'address', 'process')
  end
  redis.call('DEL', keys[1])
  redis.call('HSET', keys[1], 'incarnation', incarnation, unpack(args, 8))
  redis.call('PEXPIRE', keys[1], args[4])
  -- Who was not heard of for a while, and was not missed, is still who it was.
  if args[6] == 'anew' or incarnation_of(redis.call('HGET', keys[2], 'live:' .. node)) ~= incarnation then
    local live = next_generation(keys[2], args[5]) .. ' ' .. incarnation .. ' ' .. args[7]
    redis.call('HSET', keys[2], 'live:' .. node, live)
    redis.call('HDEL', keys[2], 'left:' .. node)
  end
  return nil
end

-- KEYS: also the hashes of other live brokers. ARGS: node id, incarnation, time to live in ms, heartbeat, 'bury' if others whose
-- hash has expired are gone, then the others' node ids. Returns 1, the least time to live of the others in ms (-1: none),
-- the hash of all brokers; 0 when another broker has the node id; -1 when it is to register.
local function renew(keys, args)
  local node, incarnation = args[1], args[2]
  local there = redis.call('HGET', keys[1], 'incarnation')
  if there ~= incarnation then
    return { there and 0 or -1 }
  end
  if incarnation_of(redis.call('HGET', keys[2], 'live:' .. node)) ~= incarnation then
    return { -1 }
  end
  redis.call('HSET', keys[1], 'heartbeat', args[4])
  redis.call('PEXPIRE', keys[1], args[3])
  local soonest = -1
  for place = 3, #keys do
    local other = args[place + 3]
    local left = redis.call('PTTL', keys[place])
    if left >= 0 then
      if soonest < 0 or left < soonest then soonest = left end
    elseif args[5] == 'bury' and redis.call('HEXISTS', keys[2], 'live:' .. other) == 1 then
      bury(keys[2], other)
    end
  end
  return { 1, soonest, redis.call('HGETALL', keys[2]) }
end

-- ARGS: node id, incarnation. Takes the broker away if it is still the one that is there. Returns the hash of all brokers.
local function leave(keys, args)
  if redis.call('HGET', keys[1], 'incarnation') == args[2] then redis.call('DEL', keys[1]) end
  if incarnation_of(redis.call('HGET', keys[2], 'live:' .. args[1])) == args[2] then bury(keys[2], args[1]) end
  return redis.call('HGETALL', keys[2])
end

redis.register_function { function_name = 'weir_broker_register_v2', callback = register, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_broker_renew_v2', callback = renew, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_broker_leave_v2', callback = leave, flags = { 'allow-oom' } }
