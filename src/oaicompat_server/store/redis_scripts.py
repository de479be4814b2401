"""What Redis does in one step: Lua scripts on the keys that `redis` describes.

One rule: a script decides before it writes, so that what it does is all or nothing; it runs alone, whatever
other gateways want meanwhile. Keys that are not named when it is called it finds in what it was asked for,
which a cluster would not allow.
"""

from __future__ import annotations

# `take` reads the arguments one by one. A response's `until` is empty once it has ended; a response that was
# deleted has nothing but `deleted`. An item's list names, latest first, where its versions are: the key of a
# response or conversation, a line end, and the field.
_COMMON = """
local at = 0
local function take()
  at = at + 1
  return ARGV[at]
end

local function lives(key)
  local state = redis.call('HMGET', key, 'deleted', 'until')
  return state[2], state[1]
end

local function refer(item, key, field, ttl)
  redis.call('LPUSH', item, key .. '\\n' .. field)
  redis.call('LTRIM', item, 0, 99)
  redis.call('PEXPIRE', item, ttl)
end

local function items_of(key)
  return string.gmatch(redis.call('HGET', key, 'items') or '', '[^\\n]+')
end

local function unrefer(key)
  for item in items_of(key) do
    redis.call('LREM', item, 0, key .. '\\ninput')
    redis.call('LREM', item, 0, key .. '\\noutput')
  end
end

local function add_chunks(key)
  local count = tonumber(redis.call('HGET', key, 'chunks') or '0')
  local lasts = redis.call('HGET', key, 'lasts') or ''
  for _ = 1, tonumber(take()) do
    lasts = lasts .. take() .. '\\n'
    redis.call('HSET', key, 'chunk:' .. count, take())
    count = count + 1
  end
  redis.call('HSET', key, 'chunks', count, 'lasts', lasts)
end

local function add_items(key, ttl)
  for _ = 1, tonumber(take()) do
    local item = take()
    local field = 'item:' .. redis.call('HINCRBY', key, 'count', 1) .. ':' .. item
    redis.call('HSET', key, field, take())
    refer(item, key, field, ttl)
  end
  redis.call('PEXPIRE', key, ttl)
end

local function item_of(field)
  return string.match(field, '^item:%d+:(.*)$')
end

local function drop_conversation(key)
  for _, field in ipairs(redis.call('HKEYS', key)) do
    local item = item_of(field)
    if item then redis.call('LREM', item, 0, key .. '\\n' .. field) end
  end
  redis.call('DEL', key)
end
"""

SAVE = (
    _COMMON
    + """
local key, conversation = KEYS[1], KEYS[2]
local ttl = take()
local running, deleted = lives(key)
if deleted or running == '' then return 0 end
if conversation and redis.call('EXISTS', conversation) == 0 then return 0 end
if running then unrefer(key) end
for _ = 1, tonumber(take()) do
  local field = take()
  redis.call('HSET', key, field, take())
end
local items = {}
for _ = 1, tonumber(take()) do
  local item = take()
  refer(item, key, take(), ttl)
  table.insert(items, item)
end
redis.call('HSET', key, 'items', table.concat(items, '\\n'))
add_chunks(key)
redis.call('PEXPIRE', key, ttl)
if conversation then add_items(conversation, ttl) end
return 1
"""
)

APPEND = (
    _COMMON
    + """
local key, ttl, till = KEYS[1], take(), take()
local running = lives(key)
if not running or running == '' then return 0 end
add_chunks(key)
redis.call('HSET', key, 'until', till)
redis.call('PEXPIRE', key, ttl)
return 1
"""
)

DELETE = (
    _COMMON
    + """
local key, ttl = KEYS[1], take()
if not lives(key) then return 0 end
unrefer(key)
redis.call('DEL', key)
redis.call('HSET', key, 'deleted', 1)
redis.call('PEXPIRE', key, ttl)
return 1
"""
)

HISTORY = (
    _COMMON
    + """
local key, id = KEYS[1], take()
local most, ttl, longer = tonumber(take()), take(), take()
local chain, keys, seen = {}, {}, {}
while key ~= '' and not seen[key] do
  local row = redis.call('HMGET', key, 'until', 'input', 'output', 'previous', 'previous_key')
  if not row[1] then return {'missing', id} end
  if #keys == most then return {'long'} end
  seen[key] = true
  table.insert(chain, row[2])
  table.insert(chain, row[3])
  table.insert(keys, {key, row[1] == '' and ttl or longer})
  key, id = row[5], row[4]
end
for _, each in ipairs(keys) do
  redis.call('PEXPIRE', each[1], each[2])
  for item in items_of(each[1]) do redis.call('PEXPIRE', item, each[2]) end
end
return {'found', chain}
"""
)

CREATE_CONVERSATION = (
    _COMMON
    + """
local key, ttl = KEYS[1], take()
drop_conversation(key)
redis.call('HSET', key, 'created', take(), 'metadata', take())
add_items(key, ttl)
return 1
"""
)

UPDATE_CONVERSATION = """
if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
redis.call('HSET', KEYS[1], 'metadata', ARGV[1])
return redis.call('HGET', KEYS[1], 'created')
"""

DELETE_CONVERSATION = (
    _COMMON
    + """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
drop_conversation(KEYS[1])
return 1
"""
)

ADD_ITEMS = (
    _COMMON
    + """
local key, ttl = KEYS[1], take()
if redis.call('EXISTS', key) == 0 then return 0 end
add_items(key, ttl)
return 1
"""
)

CONVERSATION_ITEMS = (
    _COMMON
    + """
local key, ttl = KEYS[1], take()
if redis.call('EXISTS', key) == 0 then return nil end
redis.call('PEXPIRE', key, ttl)
for _, field in ipairs(redis.call('HKEYS', key)) do
  local item = item_of(field)
  if item then redis.call('PEXPIRE', item, ttl) end
end
return redis.call('HGETALL', key)
"""
)

KEEP_SIGNATURES = """
for at, key in ipairs(KEYS) do
  redis.call('SET', key, ARGV[at + 1], 'PX', ARGV[1])
end
return 1
"""

DELETE_ITEM = (
    _COMMON
    + """
local key, wanted, gone = KEYS[1], take(), 0
for _, field in ipairs(redis.call('HKEYS', key)) do
  if item_of(field) == wanted then
    redis.call('HDEL', key, field)
    redis.call('LREM', wanted, 0, key .. '\\n' .. field)
    gone = 1
  end
end
return gone
"""
)
