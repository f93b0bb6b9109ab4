#!lua name=weir_groups

-- Groups and their offsets. Nothing of a group is written unless it is in the epoch that the caller expects. All may write when
-- memory has run out: a group that can't commit reads everything again.

local CHUNK = 1000

-- Calls `command key` with args[first] to args[last], in pieces that fit Lua's stack.
local function in_chunks(command, key, args, first, last)
  for from = first, last, CHUNK do
    redis.call(command, key, unpack(args, from, math.min(from + CHUNK - 1, last)))
  end
end

-- args[first] to args[last]: expected epoch ('' = must not exist); how many values of the group's hash follow ('' = leave it),
-- name and value in turn; how many values of offsets follow, name and value in turn; the names of offsets to remove.
-- Returns 1 and the epoch or, when another epoch is stored, 0 and that epoch.
local function write(group, offsets, args, first, last)
  local stored = redis.call('HGET', group, 'epoch') or ''
  if stored ~= args[first] then
    return 0, stored
  end
  local at = first + 2
  local fields = tonumber(args[first + 1])
  if fields then
    at = at + fields
  elseif stored == '' then
    error({ err = 'ERR a group is created by what it holds' })
  end
  local set = tonumber(args[at])
  in_chunks('HSET', offsets, args, at + 1, at + set)
  in_chunks('HDEL', offsets, args, at + set + 1, last)
  if not fields then
    return 1, stored
  end
  local epoch
  if stored == '' then
    -- From the clock, so that it differs from those of a deleted group of the same name.
    local time = redis.call('TIME')
    epoch = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
    -- What a group of the same name may have left, were it deleted by hand.
    if set == 0 then
      redis.call('UNLINK', offsets)
    end
  else
    epoch = string.format('%.0f', tonumber(stored) + 1)
  end
  local claimed = redis.call('HGET', group, 'claimed')
  redis.call('DEL', group)
  redis.call('HSET', group, 'epoch', epoch)
  if claimed then
    redis.call('HSET', group, 'claimed', claimed)
  end
  in_chunks('HSET', group, args, first + 2, first + 1 + fields)
  return 1, epoch
end

-- KEYS: of each group, its hash and its offsets' hash (one slot). ARGS: of each group, how many arguments it has, then these,
-- as `write` takes them. Returns what `write` gives for each group in turn; -1 and an error where it failed, which harms no
-- other group.
local function write_all(keys, args)
  local answer = {}
  local at = 1
  for index = 1, #keys, 2 do
    local last = at + tonumber(args[at])
    local ran, done, epoch = pcall(write, keys[index], keys[index + 1], args, at + 1, last)
    if not ran then
      done, epoch = -1, type(done) == 'table' and done.err or tostring(done)
    end
    answer[#answer + 1] = done
    answer[#answer + 1] = epoch
    at = last + 1
  end
  return answer
end

-- KEYS: a group's hash, its offsets' hash. ARGS: expected epoch. Returns what `write` gives.
local function delete(keys, args)
  local stored = redis.call('HGET', keys[1], 'epoch') or ''
  if stored ~= args[1] then
    return { 0, stored }
  end
  redis.call('UNLINK', keys[1], keys[2])
  return { 1, stored }
end

-- KEYS: a group's hash, its offsets' hash. ARGS: the epoch with which the caller coordinates the group, or '' for one that is alone.
-- Moves the epoch of a group that is there, so that no earlier coordinator can write it any more. Returns both hashes; where one with
-- a newer epoch has claimed the group, that epoch.
local function claim(keys, args)
  local epoch = tonumber(redis.call('HGET', keys[1], 'epoch') or '')
  local coordinates = tonumber(args[1])
  if epoch then
    local claimed = tonumber(redis.call('HGET', keys[1], 'claimed') or '')
    if coordinates and claimed and claimed > coordinates then
      return claimed
    end
    redis.call('HSET', keys[1], 'epoch', string.format('%.0f', epoch + 1))
    if coordinates then
      redis.call('HSET', keys[1], 'claimed', args[1])
    else
      redis.call('HDEL', keys[1], 'claimed')
    end
  end
  return { redis.call('HGETALL', keys[1]), redis.call('HGETALL', keys[2]) }
end

local function halves(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- The first entry at or after an ID, as the halves of its ID.
local function entry_from(stream, id)
  local entry = redis.call('XRANGE', stream, id, '+', 'COUNT', 1)[1]
  if entry then
    return halves(entry[1])
  end
end

-- The ID in a mark of the log (scripts/log.lua): where an append begins, about every MB.
local function marked(mark)
  return string.match(mark, '^%d+ (%d+)%-')
end

-- The ID of the last entry whose right half (its last offset) is at most `offset`, or '0-0'. The left halves never decrease, so
-- this bisects over them between two marks, by interpolation and by halves in turn.
local function find(stream, marks, offset, last_ms, last_offset)
  local limit = string.format('%.0f', offset)
  local below = redis.call('ZRANGE', marks, limit, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
  local above = redis.call('ZRANGE', marks, '(' .. limit, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  local from = below and marked(below) .. '-0' or '-'
  local low_ms, low_offset = entry_from(stream, from)
  if not low_ms or offset < low_offset then
    -- The entry before the first that is above `offset`, if retention has left one.
    local before = below and redis.call('XREVRANGE', stream, '(' .. from, '-', 'COUNT', 1)[1]
    return before and before[1] or '0-0'
  end
  local high_ms, high_offset = last_ms, last_offset
  if above then
    high_ms = math.min(high_ms, tonumber(marked(above)))
  end
  -- An entry at low_ms is at most `offset`; the first at high_ms + 1 is above it.
  for round = 1, 128 do
    if low_ms >= high_ms then
      break
    end
    local middle
    if round % 2 == 1 and high_offset > low_offset then
      middle = low_ms + math.floor((high_ms - low_ms) * (offset - low_offset) / (high_offset - low_offset))
      middle = math.min(math.max(middle, low_ms + 1), high_ms)
    else
      middle = low_ms + math.ceil((high_ms - low_ms) / 2)
    end
    local ms, first = entry_from(stream, string.format('%.0f-0', middle))
    if first and first <= offset then
      low_ms, low_offset = ms, first
    else
      high_ms, high_offset = middle - 1, first or high_offset
    end
  end
  local found = redis.call('XREVRANGE', stream, string.format('%.0f-%.0f', low_ms, offset), '-', 'COUNT', 1)[1]
  return found and found[1] or '0-0'
end

-- KEYS: a stream, its state, its marks (scripts/log.lua). ARGS: topic id; group; committed offset ('' = take the group away).
-- Shows the offset in a native consumer group. Never creates the stream, and leaves another topic of the same name alone.
-- Returns 1 if it did something.
local function mirror(keys, args)
  local stream, group = keys[1], args[2]
  local core = redis.pcall('HGET', keys[2], 'core')
  if type(core) ~= 'string' or redis.call('TYPE', stream).ok ~= 'stream' then
    return 0
  end
  local topic, last_ms, last_offset, next_offset = string.match(core, '^1 (%S+) %d+ (%d+)%-(%d+) (%d+) ')
  if topic ~= args[1] then
    return 0
  end
  if args[3] == '' then
    return redis.call('XGROUP', 'DESTROY', stream, group)
  end
  local committed, id = tonumber(args[3]), '0-0'
  local read = math.max(0, math.min(committed, tonumber(next_offset)))
  if committed >= tonumber(next_offset) then
    -- Most groups are here, and no entry need be read.
    id = last_ms .. '-' .. last_offset
  elseif committed > 0 then
    id = find(stream, keys[3], committed - 1, tonumber(last_ms), tonumber(last_offset))
  end
  local entries_read = string.format('%.0f', read)
  local moved = redis.pcall('XGROUP', 'SETID', stream, group, id, 'ENTRIESREAD', entries_read)
  if moved.err then
    redis.call('XGROUP', 'CREATE', stream, group, id, 'ENTRIESREAD', entries_read)
  end
  return 1
end

-- Key: the index. Ids and types, in turn. A group that is new must be found, also when memory has run out.
local function index(keys, args)
  in_chunks('HSET', keys[1], args, 1, #args)
  return #args / 2
end

redis.register_function { function_name = 'weir_groups_index_v1', callback = index, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_groups_write_v2', callback = write_all, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_group_delete_v1', callback = delete, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_group_claim_v2', callback = claim, flags = { 'allow-oom' } }
redis.register_function { function_name = 'weir_group_mirror_v1', callback = mirror, flags = { 'allow-oom' } }
