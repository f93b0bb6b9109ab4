#!lua name=weir_catalog_v1

-- Keys, always in this order: topics, ids, configs, version, unfinished.
--   topics      name -> {"id", "partitions", "replication_factor", "created_ms", "revision", "configs"}
--   ids         id -> name
--   configs     resource -> {name: value}
--   unfinished  id -> "create <partitions> <name>" or "delete <partitions> <name>"

-- The topic of this name, if it has this id.
local function topic_of(topics, name, id)
  local text = redis.call('HGET', topics, name)
  if not text then
    return nil
  end
  local topic = cjson.decode(text)
  if topic.id ~= id then
    return nil
  end
  return topic, text
end

local function promise(keys, id, work, partitions, name)
  redis.call('HSET', keys[5], id, work .. ' ' .. partitions .. ' ' .. name)
end

-- Each change: how many arguments it takes, and what it does with them. Gives what came of it, and whether it wrote.
local changes = {
  create = {
    4,
    function(keys, name, id, json, partitions)
      local there = redis.call('HGET', keys[1], name)
      if there then
        return there == json and 'done' or 'exists', false
      end
      redis.call('HSET', keys[1], name, json)
      redis.call('HSET', keys[2], id, name)
      promise(keys, id, 'create', partitions, name)
      return 'done', true
    end,
  },
  delete = {
    2,
    function(keys, name, id)
      local topic = topic_of(keys[1], name, id)
      if not topic then
        return 'missing', false
      end
      redis.call('HDEL', keys[1], name)
      redis.call('HDEL', keys[2], id)
      promise(keys, id, 'delete', topic.partitions, name)
      return 'done', true
    end,
  },
  replace = {
    5,
    function(keys, name, id, revision, json, partitions)
      local topic, text = topic_of(keys[1], name, id)
      if not topic then
        return 'missing', false
      end
      if text == json then
        return 'done', false
      end
      if topic.revision ~= tonumber(revision) then
        return 'stale', false
      end
      redis.call('HSET', keys[1], name, json)
      if topic.partitions ~= tonumber(partitions) then
        promise(keys, id, 'create', partitions, name)
      end
      return 'done', true
    end,
  },
  configure = {
    3,
    function(keys, resource, old, new)
      local there = redis.call('HGET', keys[3], resource) or '{}'
      if there == new then
        return 'done', false
      end
      if there ~= old then
        return 'stale', false
      end
      if new == '{}' then
        redis.call('HDEL', keys[3], resource)
      else
        redis.call('HSET', keys[3], resource, new)
      end
      return 'done', true
    end,
  },
}

-- Gives the version before, the version after, and what came of each change.
local function apply(keys, args)
  local before = redis.call('GET', keys[4]) or '0'
  local answer = { before, before }
  local wrote = false
  local at = 1
  while at <= #args do
    local change = changes[args[at]]
    if not change then
      return redis.error_reply('ERR unknown change of the catalog')
    end
    local count, run = change[1], change[2]
    local result, changed = run(keys, unpack(args, at + 1, at + count))
    answer[#answer + 1] = result
    wrote = wrote or changed
    at = at + 1 + count
  end
  if wrote then
    answer[2] = tostring(redis.call('INCR', keys[4]))
  end
  return answer
end

-- id, work, partitions. Gives 1 if the topic is still there.
local function finish(keys, args)
  local id, work, done = args[1], args[2], tonumber(args[3])
  local text = redis.call('HGET', keys[5], id)
  if text then
    local promised, partitions = string.match(text, '^(%a+) (%d+) ')
    if promised == work and tonumber(partitions) <= done then
      redis.call('HDEL', keys[5], id)
    end
  end
  return redis.call('HEXISTS', keys[2], id)
end

redis.register_function('weir_catalog_apply_v1', apply)
redis.register_function('weir_catalog_finish_v1', finish)
