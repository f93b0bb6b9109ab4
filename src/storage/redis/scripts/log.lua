#!lua name=weir_log_1
-- The partition's log: what must be decided and written in one step. DESIGN section 5; docs/redis-layout.md.
-- Keys, always in this order: the stream, its state, its marks. A Function's name never changes meaning.
--
-- The state's field `core`, one line, so that it can be compared and replaced as a whole:
--   1 <topic id> <leader epoch> <last ID> <next offset> <log start> <largest timestamp> <its offset, -1: unknown>
--   <bytes ever written> <bytes below the log start> <bytes at the last mark> <entries> <fence>

local CORE = '^1 (%S+) (%d+) (%d+)%-(%d+) (%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%d+) (%d+) (%-?%d+) (%d+)$'

local function parse(text)
  local topic, epoch, ms, seq, next_offset, start, top, top_offset, bytes, below, marked, entries, fence =
    string.match(text, CORE)
  if not topic then return nil end
  return {
    topic = topic, epoch = tonumber(epoch), ms = tonumber(ms), last = ms .. '-' .. seq, seq = tonumber(seq),
    next_offset = tonumber(next_offset), start = tonumber(start), top = tonumber(top),
    top_offset = tonumber(top_offset), bytes = tonumber(bytes), below = tonumber(below), marked = tonumber(marked),
    entries = tonumber(entries), fence = tonumber(fence),
  }
end

local function format(core)
  return string.format('1 %s %d %s %d %d %d %d %d %d %d %d %d', core.topic, core.epoch, core.last, core.next_offset,
    core.start, core.top, core.top_offset, core.bytes, core.below, core.marked, core.entries, core.fence)
end

-- The state's field `cold`, there while the topic has a cold tier:
--   1 <1: nothing is trimmed that is not archived> <log start> <archived end> <largest timestamp> <bytes at rest>
-- Where it can't be read, nothing is trimmed.
local function parse_cold(text)
  local holds, start, archived, rest = string.match(text, '^1 ([01]) (%d+) (%d+) (%-?%d+ %d+)$')
  if not holds then return { holds = true, start = 0, archived = 0 } end
  return { holds = holds == '1', start = tonumber(start), archived = tonumber(archived), rest = rest }
end

local function cold_of(state)
  local text = redis.call('HGET', state, 'cold')
  return text and parse_cold(text) or nil
end

-- The same archive, of a log that starts at `start` or after it.
local function cold_from(cold, start)
  return string.format('1 %d %d %d %s', cold.holds and 1 or 0, math.max(cold.start, math.min(start, cold.archived)),
    cold.archived, cold.rest)
end

local function message(reply)
  if type(reply) == 'table' and reply.err then return reply.err end
  return 'missing'
end

-- The parsed core of this topic id, or nil and what to answer: gone (no state, or no state of ours), other (topic id).
local function open(state, topic)
  local text = redis.pcall('HGET', state, 'core')
  if type(text) ~= 'string' then return nil, { 'gone', message(text) } end
  local core = parse(text)
  if not core then return nil, { 'gone', 'unreadable' } end
  if core.topic ~= topic then return nil, { 'other', text } end
  return core
end

local function seq_of(entry) return tonumber(string.match(entry[1], '%-(%d+)$')) end
local function ms_of(id) return tonumber(string.match(id, '^(%d+)%-')) end

-- The offset of the first record of an entry: a batch's ID holds the offset of its last.
local function base_of(entry)
  local batch = entry[2][2]
  if entry[2][1] == '__batch' and #batch >= 27 then return seq_of(entry) - struct.unpack('>i4', batch, 24) end
  return seq_of(entry)
end

-- Tells brokers, which do not look at a stream unless they have a reason, that somebody else changes it.
local function tell(stream) redis.call('PUBLISH', 'weir:changed', stream) end

-- What the guard agreed to, for the seal of the same transaction.
local agreed_stream, agreed_length, agreed_entries = nil, nil, nil

-- args: the expected core, its last ID, its entries, then fields whose values are answered where the core is another.
local function guard(keys, args)
  agreed_stream = nil
  local core = redis.pcall('HGET', keys[2], 'core')
  if core == args[1] then
    local length = redis.pcall('XLEN', keys[1])
    if type(length) == 'number' then
      local opened = redis.pcall('XSETID', keys[1], args[2])
      if opened.ok then
        agreed_stream, agreed_length, agreed_entries = keys[1], length, tonumber(args[3])
        return length
      end
      return { 'closed', message(opened) }
    end
    return { 'closed', message(length) }
  end
  if type(core) ~= 'string' then return { 'gone', message(core) } end
  local values = { false }
  if args[4] then values = redis.pcall('HMGET', keys[2], unpack(args, 4)) end
  return { 'stale', core, unpack(values) }
end

-- Removes what lies above the state's last ID, and opens the stream as it was before. Redis 8.2 takes no ID below one that was
-- deleted: there the log goes on above it.
local function take_back(stream, state, core)
  local above = redis.pcall('XRANGE', stream, '(' .. core.last, '+')
  if above.err then return end
  for _, entry in ipairs(above) do redis.pcall('XDEL', stream, entry[1]) end
  local function go_on() return redis.pcall('XSETID', stream, core.last, 'ENTRIESADDED', core.next_offset, 'MAXDELETEDID', '0-0') end
  local highest = above[#above]
  if go_on().ok or not highest then return end
  core.ms, core.seq, core.last = ms_of(highest[1]), seq_of(highest), highest[1]
  if go_on().ok then redis.pcall('HSET', state, 'core', format(core)) end
end

-- Removes the producers least recently used of a sample, so that a state never grows without bound.
local function evict(state)
  local sample = redis.pcall('HRANDFIELD', state, 24, 'WITHVALUES')
  if sample.err then return end
  local oldest, oldest_use = nil, nil
  for at = 1, #sample, 2 do
    if string.sub(sample[at], 1, 2) == 'p:' then
      local use = tonumber(string.match(sample[at + 1], '^%S+ (%d+)'))
      if use and (not oldest_use or use < oldest_use) then oldest, oldest_use = sample[at], use end
    end
  end
  if oldest then redis.pcall('HDEL', state, oldest) end
end

-- args: entries that were to be added, the new core, the new last ID, the next offset where XADD does not count it
-- right by itself (else empty), a mark's offset and text (or empty), the most fields the state may have (empty: no
-- producer is new), then fields and values. Answers the length before, or false if nothing was written.
local function seal(keys, args)
  local stream, length = agreed_stream, agreed_length
  agreed_stream = nil
  if stream ~= keys[1] then
    local text = redis.pcall('HGET', keys[2], 'core')
    local core = type(text) == 'string' and parse(text)
    if core then redis.pcall('XSETID', keys[1], core.last) end
    return false
  end
  if redis.pcall('XLEN', stream) ~= length + tonumber(args[1]) then
    local text = redis.pcall('HGET', keys[2], 'core')
    local core = type(text) == 'string' and parse(text)
    if core then take_back(stream, keys[2], core) end
    return false
  end
  redis.call('HSET', keys[2], 'core', args[2], unpack(args, 8))
  -- Where somebody removed entries, Redis' note of the last one stays until it was looked at.
  if args[4] ~= '' and length == agreed_entries then
    redis.call('XSETID', stream, args[3], 'ENTRIESADDED', args[4], 'MAXDELETEDID', '0-0')
  end
  if args[5] ~= '' then redis.call('ZADD', keys[3], args[5], args[6]) end
  if args[7] ~= '' and redis.call('HLEN', keys[2]) > tonumber(args[7]) then evict(keys[2]) end
  return length
end

-- Guard, entries and seal of a small append in one call. args: the expected core, its last ID, its entries, the new
-- core, the new last ID, the next offset, a mark's offset and text, the most fields of the state (as in the seal),
-- a count of fields and values and these, then for each entry a count of arguments, its ID, its fields.
local function put(keys, args)
  local stream, state = keys[1], keys[2]
  local text = redis.pcall('HGET', state, 'core')
  if text ~= args[1] then
    if type(text) ~= 'string' then return { 'gone', message(text) } end
    return { 'stale', text }
  end
  local length = redis.pcall('XLEN', stream)
  if type(length) ~= 'number' then return { 'closed', message(length) } end
  local opened = redis.pcall('XSETID', stream, args[2])
  if not opened.ok then return { 'closed', message(opened) } end
  local at = 11 + tonumber(args[10])
  while args[at] do
    local after = at + 1 + tonumber(args[at])
    local added = redis.pcall('XADD', stream, 'NOMKSTREAM', unpack(args, at + 1, after - 1))
    if type(added) ~= 'string' then
      take_back(stream, state, parse(text))
      return { 'failed', message(added) }
    end
    at = after
  end
  redis.call('HSET', state, 'core', args[4], unpack(args, 11, 10 + tonumber(args[10])))
  if args[6] ~= '' and length == tonumber(args[3]) then
    redis.call('XSETID', stream, args[5], 'ENTRIESADDED', args[6], 'MAXDELETEDID', '0-0')
  end
  if args[7] ~= '' then redis.call('ZADD', keys[3], args[7], args[8]) end
  if args[9] ~= '' and redis.call('HLEN', state) > tonumber(args[9]) then evict(state) end
  return length
end

-- The left half of the ID of an entry that ends with `last_offset` and whose largest timestamp is `timestamp`.
local function next_ms(core, timestamp, last_offset)
  local ms = core.ms
  if timestamp > ms then ms = timestamp end
  if ms < 1 then ms = 1 end
  if ms == core.ms and last_offset <= core.seq then ms = ms + 1 end
  return ms
end

local function advance(core, ms, last_offset)
  core.ms, core.seq = ms, last_offset
  core.last = string.format('%d-%d', ms, last_offset)
  core.next_offset = last_offset + 1
  core.entries = core.entries + 1
end

local function take_timestamp(core, timestamp, offset)
  if timestamp > core.top then core.top, core.top_offset = timestamp, offset end
end

-- Adds one record. `fields` has room for seven items before the first field. Once a record needed `__ts`, the next
-- have it too: a field that only some entries of a node have is dear.
local function add_record(stream, core, timestamp, is_append_time, fields)
  local offset = core.next_offset
  local ms = next_ms(core, timestamp, offset)
  local delta = ms - timestamp
  local at = 7
  if is_append_time then
    fields[at] = delta == 0 and 'append' or string.format('append %d', delta)
    at = at - 1
    fields[at] = '__ts'
    at = at - 1
  elseif delta ~= 0 or core.keeps_timestamps or #fields == 7 then
    core.keeps_timestamps = core.keeps_timestamps or delta ~= 0
    fields[at] = string.format('%d', delta)
    at = at - 1
    fields[at] = '__ts'
    at = at - 1
  end
  fields[at] = string.format('%d-%d', ms, offset)
  fields[at - 1], fields[at - 2], fields[at - 3] = 'NOMKSTREAM', stream, 'XADD'
  local added = redis.pcall(unpack(fields, at - 3))
  if type(added) ~= 'string' then return message(added) end
  take_timestamp(core, timestamp, offset)
  advance(core, ms, offset)
  return nil
end

-- Opens the stream at the state's last ID; fails where somebody else's entry lies above it.
local function open_stream(stream, core)
  local length = redis.pcall('XLEN', stream)
  if type(length) ~= 'number' then return nil, message(length) end
  local opened = redis.pcall('XSETID', stream, core.last)
  if not opened.ok then return nil, message(opened) end
  return length
end

-- Notes where an append begins, about every `interval` bytes. Called once the append is written.
local function mark(marks, core, interval, offset, ms, bytes)
  if core.bytes - core.marked >= interval then
    redis.call('ZADD', marks, offset, string.format('%d %d-%d %d', offset, ms, offset, bytes))
    core.marked = core.bytes
  end
end

-- Appends and gives the offsets itself. args: topic id, leader epoch, the writer's field and append number, now (ms),
-- bytes between marks, most fields of the state, the epochs field where the epoch is a new one (else empty), batches;
-- for each batch: producer field (or empty), the value expected in it (or empty), the new value without the offset at
-- its end, bytes on the wire, kind, and
--   b: records, largest timestamp, its index, the batch from its 9th byte on
--   r: records, `append` or empty, `keep` or empty; for each record: timestamp, count of field arguments, these
local function append(keys, args)
  local stream, state, marks = keys[1], keys[2], keys[3]
  local batches, wanted, at = tonumber(args[9]), { args[3], 'core' }, 10
  local producers = {}
  for _ = 1, batches do
    if args[at] ~= '' then
      producers[#producers + 1] = at
      wanted[#wanted + 1] = args[at]
    end
    at = at + 4
    if args[at] == 'b' then
      at = at + 5
    else
      local records = tonumber(args[at + 1])
      at = at + 4
      for _ = 1, records do at = at + 2 + tonumber(args[at + 1]) end
    end
  end
  local values = redis.pcall('HMGET', state, unpack(wanted))
  if values.err then return { 'gone', values.err } end
  if not values[2] then return { 'gone', 'missing' } end
  local core = parse(values[2])
  if not core then return { 'gone', 'unreadable' } end
  if core.topic ~= args[1] then return { 'other', values[2] } end
  local epoch = tonumber(args[2])
  if epoch < core.epoch then return { 'fenced', values[2] } end
  if values[1] and tonumber(string.match(values[1], '^(%d+)')) >= tonumber(args[4]) then
    return { 'spent', values[2], values[1] }
  end
  for index, position in ipairs(producers) do
    if (values[index + 2] or '') ~= args[position + 1] then return { 'stale', values[2], unpack(values, 3) } end
  end
  local length, closed = open_stream(stream, core)
  if not length then return { 'closed', closed } end

  local entries, first_bytes, first_offset, first_ms = core.entries, core.bytes, core.next_offset, nil
  local answer = { 'ok', '', length }
  local set = { 'HSET', state, 'core', '', args[3],
    string.format('%s %d %s', args[4], first_offset, args[5]) }
  if args[8] ~= '' then
    core.epoch = epoch
    set[#set + 1] = 'epochs'
    set[#set + 1] = args[8] .. string.format('%d', first_offset)
  end
  local has_batch, is_new_producer = false, false
  at = 10
  for _ = 1, batches do
    local base = core.next_offset
    answer[#answer + 1] = base
    if args[at] ~= '' then
      set[#set + 1] = args[at]
      set[#set + 1] = args[at + 2] .. string.format('%d', base)
      is_new_producer = is_new_producer or args[at + 1] == ''
    end
    core.bytes = core.bytes + tonumber(args[at + 3])
    at = at + 4
    local failure = nil
    if args[at] == 'b' then
      has_batch = true
      local last, top = base + tonumber(args[at + 1]) - 1, tonumber(args[at + 2])
      local ms = next_ms(core, top, last)
      first_ms = first_ms or ms
      local added = redis.pcall('XADD', stream, 'NOMKSTREAM', string.format('%d-%d', ms, last), '__batch',
        struct.pack('>i8', base) .. args[at + 4])
      if type(added) ~= 'string' then failure = message(added) end
      take_timestamp(core, top, base + tonumber(args[at + 3]))
      advance(core, ms, last)
      at = at + 5
    else
      local records, is_append_time = tonumber(args[at + 1]), args[at + 2] == 'append'
      core.keeps_timestamps = core.keeps_timestamps or args[at + 3] == 'keep'
      at = at + 4
      for _ = 1, records do
        local count = tonumber(args[at + 1])
        local fields = { false, false, false, false, false, false, false, unpack(args, at + 2, at + 1 + count) }
        failure = failure or add_record(stream, core, tonumber(args[at]), is_append_time, fields)
        first_ms = first_ms or core.ms
        at = at + 2 + count
      end
    end
    if failure then
      take_back(stream, state, parse(values[2]))
      return { 'failed', failure }
    end
  end
  mark(marks, core, tonumber(args[6]), first_offset, first_ms, first_bytes)
  local text = format(core)
  set[4], answer[2] = text, text
  redis.call(unpack(set))
  if has_batch and length == entries then
    redis.call('XSETID', stream, core.last, 'ENTRIESADDED', core.next_offset, 'MAXDELETEDID', '0-0')
  end
  if is_new_producer and redis.call('HLEN', state) > tonumber(args[7]) then evict(state) end
  return answer
end

-- args: topic id, then fields. Answers core, length, the end at the last retention check, epochs, the fields' values.
local function load_state(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then
    return { refusal[1], refusal[2], redis.pcall('EXISTS', keys[1]) }
  end
  local length = redis.pcall('XLEN', keys[1])
  if type(length) ~= 'number' then length = -1 end
  if length == 0 and redis.call('EXISTS', keys[1]) == 0 then length = -1 end
  return { 'ok', length, unpack(redis.call('HMGET', keys[2], 'core', 'checked', 'epochs', unpack(args, 2))) }
end

local MOST_EPOCHS = 100

-- The field `epochs` once `epoch` begins at the end of the log. Epochs without records, those of which no records are
-- left, and the oldest of too many are not kept.
local function begin_epoch(core, log_start, text, epoch)
  local starts = {}
  for known, start in string.gmatch(text, '(%d+):(%d+)') do starts[#starts + 1] = { known, tonumber(start) } end
  if #starts == 0 then starts[1] = { string.format('%d', core.epoch), 0 } end
  while #starts > 0 and starts[#starts][2] >= core.next_offset do starts[#starts] = nil end
  starts[#starts + 1] = { string.format('%d', epoch), core.next_offset }
  local first = math.max(1, #starts - MOST_EPOCHS + 1)
  while starts[first + 1] and starts[first + 1][2] <= log_start do first = first + 1 end
  local words = {}
  for at = first, #starts do words[#words + 1] = string.format('%s:%d', starts[at][1], starts[at][2]) end
  return table.concat(words, ' ')
end

-- Takes the lead. args: topic id, leader epoch, the leader (node id and incarnation), then fields. Answers as `weir1_load`, or `fenced`
-- and the epoch where another leader has this one or a newer one. From here on no append of an earlier leader fits the core.
local function claim(keys, args)
  local core = open(keys[2], args[1])
  if core then
    local epoch, leader = tonumber(args[2]), redis.call('HGET', keys[2], 'leader')
    if epoch < core.epoch or (epoch == core.epoch and leader and leader ~= args[3]) then
      return { 'fenced', core.epoch }
    end
    if epoch > core.epoch then
      local cold, log_start = cold_of(keys[2]), core.start
      if cold and cold.start < cold.archived then log_start = math.min(cold.start, core.start) end
      local epochs = begin_epoch(core, log_start, redis.call('HGET', keys[2], 'epochs') or '', epoch)
      core.epoch = epoch
      redis.call('HSET', keys[2], 'core', format(core), 'leader', args[3], 'epochs', epochs)
    elseif not leader then
      redis.call('HSET', keys[2], 'leader', args[3])
    end
  end
  return load_state(keys, { args[1], unpack(args, 4) })
end

-- args: topic id, the server's life (or empty): what this server begins it has not lost.
local function create(keys, args)
  local core, refusal = open(keys[2], args[1])
  if core then return { 'ok' } end
  if refusal[1] == 'other' then return refusal end
  if redis.call('EXISTS', keys[2]) == 1 then return { 'occupied', keys[2] } end
  if redis.call('EXISTS', keys[1]) == 1 then return { 'occupied', keys[1] } end
  redis.call('XGROUP', 'CREATE', keys[1], 'weir', '0', 'MKSTREAM')
  redis.call('XGROUP', 'DESTROY', keys[1], 'weir')
  redis.call('DEL', keys[3])
  redis.call('HSET', keys[2], 'core', '1 ' .. args[1] .. ' 0 0-0 0 0 -1 -1 0 0 0 0 0')
  if args[2] and args[2] ~= '' then redis.call('HSET', keys[2], 'compared', args[2]) end
  return { 'ok' }
end

-- After a lost answer. args: topic id, the writer's field, append number, now. Either the append has landed, or it
-- never will: the core changes, so a guard that comes late refuses, and the number is used up.
local function resolve(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  local value = redis.call('HGET', keys[2], args[2])
  if value and tonumber(string.match(value, '^(%d+)')) >= tonumber(args[3]) then
    return { 'landed', format(core), value }
  end
  core.fence = core.fence + 1
  local text = format(core)
  redis.call('HSET', keys[2], 'core', text, args[2], args[3] .. ' - ' .. args[4])
  return { 'void', text }
end

-- Moves the local start. args: topic id, new start, bytes below it, the end to remember for the next retention check
-- (or empty), and why: empty for retention, `held` for retention of a topic with a cold tier, `drop` to remove what is not
-- archived too, `delete` where the whole log starts there. Only what readers see: `free` gives the memory back.
local function start_at(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  local start, below = math.min(tonumber(args[2]), core.next_offset), tonumber(args[3])
  local cold = cold_of(keys[2])
  if args[5] == 'delete' then
    if cold and start > cold.start and cold.start < cold.archived then
      redis.call('HSET', keys[2], 'cold', cold_from(cold, start))
    end
  elseif args[5] ~= 'drop' and (args[5] == 'held' or (cold and cold.holds)) then
    local most = cold and cold.archived or 0
    if start > most then
      local mark = redis.call('ZRANGE', keys[3], string.format('%d', most), '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
      start, below = most, mark and tonumber(string.match(mark, '(%d+)$')) or 0
    end
  end
  if start > core.start then
    -- `weir archive` trims logs that brokers lead.
    if args[5] == 'held' then tell(keys[1]) end
    core.start = start
    core.below = math.max(core.below, math.min(below, core.bytes))
    if start == core.next_offset then
      core.below = core.bytes
      core.top, core.top_offset = -1, -1
    elseif core.top_offset < start then
      core.top_offset = -1
    end
    redis.call('ZREMRANGEBYSCORE', keys[3], '-inf', '(' .. string.format('%d', start))
  end
  if args[4] ~= '' then
    redis.call('HSET', keys[2], 'checked', args[4])
    -- A mark at the end of each check, so that the next one can trim up to it.
    if core.bytes > core.marked and core.next_offset > core.start then
      redis.call('ZADD', keys[3], core.next_offset,
        string.format('%d %d-%d %d', core.next_offset, core.ms, core.next_offset, core.bytes))
      core.marked = core.bytes
    end
  end
  local text = format(core)
  redis.call('HSET', keys[2], 'core', text)
  return { 'ok', text }
end

-- args: topic id, the lowest ID that stays, most entries to look at (0: no bound, to the exact entry).
local function free(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  local removed
  if args[3] == '0' then
    removed = redis.pcall('XTRIM', keys[1], 'MINID', '=', args[2])
  else
    removed = redis.pcall('XTRIM', keys[1], 'MINID', '~', args[2], 'LIMIT', args[3])
  end
  if type(removed) ~= 'number' then return { 'closed', message(removed) } end
  if removed > 0 then
    core.entries = core.entries - removed
    redis.call('HSET', keys[2], 'core', format(core))
  end
  return { 'ok', format(core), removed }
end

-- Takes over what somebody else removed: the log starts at the first entry that is left.
local function adopt(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  local length = redis.pcall('XLEN', keys[1])
  if type(length) ~= 'number' then return { 'closed', message(length) } end
  core.entries = length
  local first = redis.call('XRANGE', keys[1], '-', core.last, 'COUNT', 1)[1]
  local start = first and math.min(base_of(first), core.next_offset) or core.next_offset
  if start > core.start then
    local mark_below = redis.call('ZRANGE', keys[3], start, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
    if mark_below then core.below = math.max(core.below, tonumber(string.match(mark_below, '(%d+)$'))) end
    if start == core.next_offset then core.below = core.bytes end
    core.start = start
    if core.top_offset < start then core.top_offset = -1 end
    if start == core.next_offset then core.top = -1 end
  end
  local text = format(core)
  redis.call('HSET', keys[2], 'core', text)
  return { 'ok', text }
end

-- Notes what is archived. args: topic id, leader epoch, the note that is expected (or empty), the note (or empty: none any
-- more). Where nothing was archived before, the log goes on starting where it does: what was deleted meanwhile does not come
-- back. Answers `ok`, `stale` where the note is another one, or `fenced` and the epoch where that is another one.
local function note_cold(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  if tonumber(args[2]) ~= core.epoch then return { 'fenced', core.epoch } end
  if (redis.call('HGET', keys[2], 'cold') or '') ~= args[3] then return { 'stale' } end
  local expected, cold = parse_cold(args[3]), args[4]
  if cold == '' then
    redis.call('HDEL', keys[2], 'cold')
  else
    if args[3] ~= '' and expected.start >= expected.archived then cold = cold_from(parse_cold(cold), core.start) end
    redis.call('HSET', keys[2], 'cold', cold)
  end
  tell(keys[1])
  return { 'ok' }
end

-- What the archive has this server may have lost: the log goes on behind it. args: topic id, leader epoch, the archive's end, the largest
-- timestamp there, the note of it, the server's life in which the archive was asked. Where nothing is lost that life is all that is kept.
-- Answers `ok`, the core, and where the log had ended; or `fenced` and the epoch where that is another one.
local function follow_archive(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  if tonumber(args[2]) ~= core.epoch then return { 'fenced', core.epoch } end
  local archived, ended = tonumber(args[3]), core.next_offset
  if archived > ended then
    core.ms, core.seq = math.max(core.ms, tonumber(args[4]), 1), archived - 1
    core.last = string.format('%d-%d', core.ms, core.seq)
    local opened = redis.pcall('XSETID', keys[1], core.last, 'ENTRIESADDED', archived, 'MAXDELETEDID', '0-0')
    if not opened.ok then return { 'closed', message(opened) } end
    core.next_offset, core.start = archived, archived
    core.below, core.marked, core.top, core.top_offset = core.bytes, core.bytes, -1, -1
    core.fence = core.fence + 1
    local epochs = redis.call('HGET', keys[2], 'epochs') or ''
    -- The epoch that has just begun begins behind what the archive has of the one before.
    epochs = string.gsub(epochs, ':' .. string.format('%d', ended) .. '$', ':' .. string.format('%d', archived))
    redis.call('DEL', keys[3])
    redis.call('HSET', keys[2], 'core', format(core), 'cold', args[5], 'epochs', epochs)
    tell(keys[1])
  end
  redis.call('HSET', keys[2], 'compared', args[6])
  return { 'ok', format(core), ended }
end

-- Keeps what a scan found. args: topic id, the core that was scanned, largest timestamp, its offset.
local function set_top(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  if format(core) ~= args[2] then return { 'stale' } end
  core.top, core.top_offset = tonumber(args[3]), tonumber(args[4])
  local text = format(core)
  redis.call('HSET', keys[2], 'core', text)
  return { 'ok', text }
end

-- An ID from which XRANGE finds the entry that holds an offset: at once, or after a scan of no more than what lies
-- between two marks. args: offset, left half of the last ID, `scan` where entries are too large to be probed.
local function seek(keys, args)
  local target = tonumber(args[1])
  local from, high = '0-0', tonumber(args[2]) + 1
  local below = redis.call('ZRANGE', keys[3], args[1], '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
  if below then from = string.match(below, '^%d+ (%S+)') end
  if args[3] == 'scan' then return from end
  local above = redis.call('ZRANGE', keys[3], '(' .. args[1], '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  if above then high = math.min(high, ms_of(string.match(above, '^%d+ (%S+)')) + 1) end
  local first = redis.call('XRANGE', keys[1], from, '+', 'COUNT', 1)[1]
  if not first or seq_of(first) >= target then return from end
  -- The last entry below the target has the left half `low`: the target is in the same millisecond or right after.
  local low = ms_of(first[1])
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    local entry = redis.call('XRANGE', keys[1], string.format('%d-0', middle), '+', 'COUNT', 1)[1]
    if entry and seq_of(entry) < target then
      low = ms_of(entry[1])
    else
      high = middle
    end
  end
  return string.format('%d-%d', low, target)
end

-- Forgets producers and writers. args: topic id, cursor, producers' and writers' last use before which they go.
local function expire(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core then return refusal end
  local page = redis.call('HSCAN', keys[2], args[2], 'COUNT', 200)
  local gone, fields = {}, page[2]
  local producers_before, writers_before = tonumber(args[3]), tonumber(args[4])
  for at = 1, #fields, 2 do
    local kind = string.sub(fields[at], 1, 2)
    if kind == 'p:' then
      local use = tonumber(string.match(fields[at + 1], '^%S+ (%d+)'))
      if use and use < producers_before then gone[#gone + 1] = fields[at] end
    elseif kind == 'w:' then
      local use = tonumber(string.match(fields[at + 1], '(%d+)$'))
      if use and use < writers_before then gone[#gone + 1] = fields[at] end
    end
  end
  if #gone > 0 then redis.call('HDEL', keys[2], unpack(gone)) end
  return { 'ok', page[1], #gone }
end

-- UNLINK gives the memory back on a thread of its own, whatever the size.
local function delete(keys, args)
  local core, refusal = open(keys[2], args[1])
  if not core and refusal[1] == 'other' then return refusal end
  redis.call('UNLINK', keys[1], keys[2], keys[3])
  return { 'ok' }
end

-- A block of ids above every one given before, also where Redis has lost its latest writes: ids run ahead of a count
-- of 2^20 for each second. args: size.
local function producer_ids(keys, args)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) - 1704067200 + tonumber(time[2]) / 1000000
  local first = math.max(tonumber(redis.call('GET', keys[1]) or '0'), math.floor(now * 1048576))
  local text = string.format('%d', first + tonumber(args[1]))
  redis.call('SET', keys[1], text)
  return string.format('%d', first)
end

-- For operators. args: topic id. Removes entries that are not Weir's from the end of the log, and goes on above them.
local function repair(keys, args)
  local stream, state = keys[1], keys[2]
  local topic = args[1]
  if not topic or not string.match(topic, '^[%w_-]+$') then return redis.error_reply('ERR the topic id is missing') end
  tell(stream)
  local kind = redis.call('TYPE', stream).ok
  if kind ~= 'stream' and kind ~= 'none' then return redis.error_reply('ERR DEL ' .. stream .. ' first: it is no stream') end
  kind = redis.call('TYPE', state).ok
  if kind ~= 'hash' and kind ~= 'none' then return redis.error_reply('ERR DEL ' .. state .. ' first: it is no hash') end
  local core, refusal = open(state, topic)
  if not core and refusal[1] == 'other' then return redis.error_reply('ERR the topic has another id') end
  if redis.call('EXISTS', stream) == 0 then
    redis.call('XGROUP', 'CREATE', stream, 'weir', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', stream, 'weir')
  end
  if not core then
    -- The state is lost: the last entry that looks like Weir's says where the log ends.
    core = parse('1 ' .. topic .. ' 0 0-0 0 0 -1 -1 0 0 0 0 0')
    local cursor = '+'
    while true do
      local entry = redis.call('XREVRANGE', stream, cursor, '-', 'COUNT', 1)[1]
      if not entry then break end
      local field = entry[2][1]
      if string.sub(field, 1, 2) == '__' or field == 'value' then
        core.ms, core.seq, core.last = ms_of(entry[1]), seq_of(entry), entry[1]
        core.next_offset = core.seq + 1
        core.top = core.ms
        break
      end
      cursor = '(' .. entry[1]
    end
  end
  local removed, highest = 0, core.last
  local info, facts = redis.call('XINFO', 'STREAM', stream), {}
  for at = 1, #info, 2 do facts[info[at]] = info[at + 1] end
  while true do
    local above = redis.call('XRANGE', stream, '(' .. core.last, '+', 'COUNT', 100)
    if #above == 0 then break end
    for _, entry in ipairs(above) do
      redis.call('XDEL', stream, entry[1])
      highest = entry[1]
      removed = removed + 1
    end
  end
  local deleted = facts['max-deleted-entry-id']
  for _, id in ipairs({ deleted or '0-0', highest }) do
    if ms_of(id) > core.ms or (ms_of(id) == core.ms and seq_of({ id }) > core.seq) then
      core.ms, core.seq, core.last = ms_of(id), seq_of({ id }), id
    end
  end
  core.entries = redis.call('XLEN', stream)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  core.start = math.max(core.start, first and math.min(base_of(first), core.next_offset) or core.next_offset)
  if core.start == core.next_offset then
    core.below, core.top, core.top_offset = core.bytes, -1, -1
  elseif core.top_offset < core.start then
    core.top_offset = -1
  end
  core.fence = core.fence + 1
  redis.call('XSETID', stream, core.last, 'ENTRIESADDED', math.max(core.next_offset, core.entries), 'MAXDELETEDID',
    deleted and core.last or '0-0')
  redis.call('HSET', state, 'core', format(core))
  return { core.start, core.next_offset, removed }
end

local RESERVED = { value = true }

-- The fields of a record given as words: [TIMESTAMP ms] [KEY k] [HEADER name value]… [NULLHEADER name]… and then
-- VALUE bytes, or NULL, or FIELD name string… and JSONFIELD name text… which make up a JSON object.
local function record_of(args)
  local fields, timestamp = { false, false, false, false, false, false, false }, nil
  local shape, names, at = {}, {}, 1
  local json_at, has_body, bytes = nil, false, 0
  local function take(count)
    if #args < at + count then error({ err = 'ERR ' .. args[at] .. ' needs ' .. count .. ' argument(s)' }) end
  end
  local function put(name, value)
    fields[#fields + 1], fields[#fields + 2] = name, value
    bytes = bytes + #name + #value
  end
  while at <= #args do
    local word = string.upper(args[at])
    if has_body then error({ err = 'ERR nothing may follow ' .. (names[1] and 'the fields but fields' or 'the value') }) end
    if json_at and word ~= 'FIELD' and word ~= 'JSONFIELD' then
      error({ err = 'ERR nothing may follow the fields but fields' })
    end
    if word == 'TIMESTAMP' then
      take(1)
      timestamp = tonumber(args[at + 1])
      if not timestamp or timestamp < 0 or timestamp > 9007199254740991 or timestamp % 1 ~= 0 then
        error({ err = 'ERR TIMESTAMP is in milliseconds' })
      end
      at = at + 2
    elseif word == 'KEY' then
      take(1)
      if #fields > 7 then error({ err = 'ERR KEY comes once, before headers' }) end
      put('__key', args[at + 1])
      at = at + 2
    elseif word == 'HEADER' then
      take(2)
      put('__header.' .. args[at + 1], args[at + 2])
      at = at + 3
    elseif word == 'NULLHEADER' then
      take(1)
      put('__nullheader.' .. args[at + 1], '')
      at = at + 2
    elseif word == 'VALUE' then
      take(1)
      put('value', args[at + 1])
      has_body = true
      at = at + 2
    elseif word == 'NULL' then
      has_body = true
      at = at + 1
    elseif word == 'FIELD' or word == 'JSONFIELD' then
      take(2)
      local name, value = args[at + 1], args[at + 2]
      if name == '' or RESERVED[name] or names[name] or string.sub(name, 1, 2) == '__' or string.find(name, '[%c"\\]') then
        error({ err = 'ERR a field can not be named ' .. name })
      end
      if not json_at then
        put('__json', '')
        json_at = #fields
      end
      if #names == 64 then error({ err = 'ERR more than 64 fields' }) end
      names[name], names[#names + 1] = true, name
      if word == 'FIELD' then
        -- What needs an escape is not stored bare.
        if string.find(value, '[%c"\\]') then
          shape[#shape + 1] = 'j'
          value = cjson.encode(value)
        else
          shape[#shape + 1] = 's'
        end
      else
        if not pcall(cjson.decode, '[' .. value .. ']') or value == '' then
          error({ err = 'ERR the value of ' .. name .. ' is no JSON' })
        end
        shape[#shape + 1] = 'j'
      end
      put(name, value)
      at = at + 3
    else
      error({ err = 'ERR unknown word ' .. args[at] })
    end
  end
  if json_at then
    fields[json_at] = 'c:' .. table.concat(shape)
  elseif not has_body then
    error({ err = 'ERR a record needs VALUE, NULL, FIELD or JSONFIELD' })
  end
  if #args > 2000 then error({ err = 'ERR too many arguments' }) end
  return fields, timestamp, bytes
end

-- For applications: appends one record with the next offset, which is the answer. docs/redis-layout.md.
local function public_append(keys, args)
  if #keys ~= 3 then return redis.error_reply('ERR three keys: the stream, its state, its marks') end
  local stream, state, marks = keys[1], keys[2], keys[3]
  local fine, fields, timestamp, bytes = pcall(record_of, args)
  if not fine then return redis.error_reply(type(fields) == 'table' and fields.err or fields) end
  local text = redis.pcall('HGET', state, 'core')
  local core = type(text) == 'string' and parse(text)
  if not core then return redis.error_reply('ERR there is no such partition: create the topic first') end
  if not timestamp then
    local time = redis.call('TIME')
    timestamp = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  -- Before anything is written, since it fails where the user may not publish. Nobody looks before this call has ended.
  tell(stream)
  local length, closed = open_stream(stream, core)
  if not length then return redis.error_reply('ERR the partition is quarantined: ' .. closed) end
  local offset, first_bytes = core.next_offset, core.bytes
  -- About what the record takes as a batch of its own.
  core.bytes = core.bytes + 75 + bytes
  local failure = add_record(stream, core, timestamp, false, fields)
  if failure then
    take_back(stream, state, parse(text))
    return redis.error_reply('ERR ' .. failure)
  end
  mark(marks, core, 1048576, offset, core.ms, first_bytes)
  redis.call('HSET', state, 'core', format(core))
  return offset
end

redis.register_function('weir1_guard', guard)
redis.register_function('weir1_seal', seal)
redis.register_function('weir1_put', put)
redis.register_function('weir1_append', append)
redis.register_function{ function_name = 'weir1_load', callback = load_state, flags = { 'no-writes' } }
redis.register_function{ function_name = 'weir1_seek', callback = seek, flags = { 'no-writes' } }
redis.register_function{ function_name = 'weir1_claim', callback = claim, flags = { 'allow-oom' } }
redis.register_function('weir1_create', create)
redis.register_function{ function_name = 'weir1_resolve', callback = resolve, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_start_at', callback = start_at, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_free', callback = free, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_adopt', callback = adopt, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_note_cold', callback = note_cold, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_follow_archive', callback = follow_archive, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_set_top', callback = set_top, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_expire', callback = expire, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_delete', callback = delete, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir1_producer_ids', callback = producer_ids, flags = { 'allow-oom' } }
redis.register_function{ function_name = 'weir_repair', callback = repair, flags = { 'allow-oom' } }
redis.register_function('weir_append', public_append)
