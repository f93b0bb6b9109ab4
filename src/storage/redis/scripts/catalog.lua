#!lua name=weir_catalog_v1

-- Keys, always in this order: topics, ids, configs, version, unfinished, changes.
--   topics      name -> {"id", "partitions", "replication_factor", "created_ms", "revision", "configs"}
--   ids         id -> name
--   configs     resource -> {name: value}
--   unfinished  id -> "create <partitions> <name>" or "delete <partitions> <name>"
--   changes     a stream of the latest changes: an entry for each version, whose ID is the version and, as a mark, the
--               microseconds of its time; its fields are what was changed: topic <name>, configs <resource>

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

-- Changes that are kept at least; whoever knows none of them reads everything.
local KEPT = 1000

-- Changes, and names in them, that are told one by one.
local TOLD = 500

-- The version and its mark: 0 where the last change that is kept is another's.
local function position(keys)
  local number = redis.call('GET', keys[4]) or '0'
  local last = redis.call('XREVRANGE', keys[6], '+', '-', 'COUNT', 1)[1]
  local changed, mark = string.match(last and last[1] or '', '^(%d+)-(%d+)$')
  return number, changed == number and mark or '0'
end

-- Gives the version before and its mark, the version after and its mark, and what came of each change.
local function apply(keys, args)
  local number, mark = position(keys)
  local answer = { number, mark, number, mark }
  local written = {}
  local at = 1
  while at <= #args do
    local kind = args[at]
    local change = changes[kind]
    if not change then
      return redis.error_reply('ERR unknown change of the catalog')
    end
    local count, run = change[1], change[2]
    local result, changed = run(keys, unpack(args, at + 1, at + count))
    answer[#answer + 1] = result
    if changed then
      written[#written + 1] = kind == 'configure' and 'configs' or 'topic'
      written[#written + 1] = args[at + 1]
    end
    at = at + 1 + count
  end
  if #written > 0 then
    local time = redis.call('TIME')
    answer[3] = tostring(redis.call('INCR', keys[4]))
    redis.call('PUBLISH', keys[4], answer[3])
    answer[4] = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
    local id = answer[3] .. '-' .. answer[4]
    local added = redis.pcall('XADD', keys[6], 'MAXLEN', '~', KEPT, id, unpack(written))
    if type(added) == 'table' and added.err then
      -- The version went back by somebody's hand: what is kept is of another history.
      redis.call('DEL', keys[6])
      redis.call('XADD', keys[6], id, unpack(written))
    end
  end
  return answer
end

-- A version and its mark. Gives 'same'; or 'changes', the version now, its mark, and for each name that was changed since what
-- it is, the name, and what there is now ('' = nothing); or 'whole' where that can't be told.
local function since(keys, args)
  local number, mark = position(keys)
  if number == args[1] and mark == args[2] then
    return { 'same' }
  end
  local known = tonumber(args[1])
  local entries = redis.call('XRANGE', keys[6], args[1] .. '-' .. args[2], '+', 'COUNT', TOLD + 1)
  -- An older version than is known: Redis has lost changes.
  if args[2] == '0' or #entries == 0 or #entries ~= tonumber(number) - known + 1 then
    return { 'whole' }
  end
  local answer, seen = { 'changes', number, mark }, {}
  for index, entry in ipairs(entries) do
    local changed, entry_mark = string.match(entry[1], '^(%d+)-(%d+)$')
    if tonumber(changed) ~= known + index - 1 or (index == 1 and entry_mark ~= args[2]) then
      return { 'whole' }
    end
    local fields = index > 1 and entry[2] or {}
    for at = 1, #fields, 2 do
      local kind, name = fields[at], fields[at + 1]
      if not seen[kind .. name] then
        seen[kind .. name] = true
        answer[#answer + 1] = kind
        answer[#answer + 1] = name
        answer[#answer + 1] = redis.call('HGET', kind == 'topic' and keys[1] or keys[3], name)
          or (kind == 'topic' and '' or '{}')
      end
    end
    if #answer > 3 * TOLD + 3 then
      return { 'whole' }
    end
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

redis.register_function('weir_catalog_apply_v2', apply)
-- For changes that make no topic: topics must be deleted, and their retention lowered, when memory has run out.
redis.register_function { function_name = 'weir_catalog_change_v1', callback = apply, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_catalog_finish_v2', callback = finish, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_catalog_changes_v1', callback = since, flags = { 'no-writes' } }
