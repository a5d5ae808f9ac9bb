"""adapter: what has to happen in one step inside the server, as Lua.

A lease is a string: 32 characters of token, then ``1`` when somebody waits for it, else ``0``. Scripts are sent as text
each time: they are short, the server keeps them compiled, and none can be missing after a restart.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPEND",
    "CLAIM",
    "CURRENT",
    "DROP",
    "EXTEND",
    "LOG_STATE",
    "NEXT",
    "POSITION",
    "PREPARE",
    "RELEASE",
    "STORE",
    "TAG",
    "UNTAG",
]

CLAIM: Final = """
local value = redis.call('GET', KEYS[1])
if value then return value end
local held = redis.call('GET', KEYS[2])
if not held then
  redis.call('SET', KEYS[2], ARGV[1] .. '0', 'PX', ARGV[2])
  return 1
end
local left = redis.call('PTTL', KEYS[2])
if string.sub(held, 33) ~= '1' then redis.call('SETRANGE', KEYS[2], 32, '1') end
return {left}
"""
"""KEYS value, lease; ARGV token, ms. The value, or 1 for a lease granted, or a list: ms that the lease lasts."""

STORE: Final = """
local held = redis.call('GET', KEYS[2])
if ARGV[1] ~= '' and (not held or string.sub(held, 1, 32) ~= ARGV[1]) then return 0 end
if ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
if not held then return 1 end
redis.call('UNLINK', KEYS[2])
if string.sub(held, 33) == '1' then return 2 end
return 1
"""
"""KEYS value, lease; ARGV token or '', value, ms or 0. 0 for refused, 1 for kept, 2 for kept while somebody waits."""

PREPARE: Final = """
local held = redis.call('GET', KEYS[2])
redis.call('UNLINK', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1] .. (held and string.sub(held, 33) or '0'), 'PX', ARGV[2])
return 1
"""
"""KEYS value, lease; ARGV token, ms. Drops the value and takes the lease from whoever holds it."""

EXTEND: Final = """
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 32) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""KEYS lease; ARGV token, ms. Whether it is still the token's."""

RELEASE: Final = """
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 32) ~= ARGV[1] then return 0 end
redis.call('UNLINK', KEYS[1])
if string.sub(held, 33) == '1' then return 2 end
return 1
"""
"""KEYS lease; ARGV token. 0 when it is another's, 2 when somebody waits."""

DROP: Final = """
redis.call('UNLINK', KEYS[2])
return redis.call('UNLINK', KEYS[1])
"""
"""KEYS value, lease. How many values went."""

TAG: Final = """
local existed = redis.call('EXISTS', KEYS[1]) == 1
redis.call('SADD', KEYS[1], ARGV[1])
local ttl = tonumber(ARGV[2])
if ttl == 0 then
  redis.call('PERSIST', KEYS[1])
elseif not existed then
  redis.call('PEXPIRE', KEYS[1], ttl)
else
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 and left < ttl then redis.call('PEXPIRE', KEYS[1], ttl) end
end
return redis.call('GET', KEYS[2]) or '0'
"""
"""KEYS set of a tag, its stamp; ARGV key, ms or 0. The stamp of the tag's latest invalidation."""

UNTAG: Final = """
local count = 0
for index, key in ipairs(ARGV) do
  redis.call('UNLINK', KEYS[2 * index + 1])
  count = count + redis.call('UNLINK', KEYS[2 * index])
  redis.call('SREM', KEYS[1], key)
end
return count
"""
"""KEYS set of a tag, then value and lease of each key; ARGV the keys. How many values went. Not for clusters."""

NEXT: Final = """
local time = redis.call('TIME')
local stamp = tonumber(redis.call('GET', KEYS[1]) or '0') + 1
stamp = string.format('%.0f', math.max(stamp, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[1], stamp)
return stamp
"""
"""KEYS sequence. A number that is larger than all before it, also when the sequence had been lost."""

CURRENT: Final = """
local stamp = redis.call('GET', KEYS[1])
if stamp then return stamp end
local time = redis.call('TIME')
stamp = string.format('%.0f', time[1] * 1000000 + time[2])
redis.call('SET', KEYS[1], stamp)
return stamp
"""
"""KEYS sequence. The latest number."""

_LAST: Final = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
"""

POSITION: Final = (
    _LAST
    + """
if last then return {last[2][2], last[1], last[2][4]} end
return {ARGV[1], redis.call('XADD', KEYS[1], '*', 'e', ARGV[1], 'n', '0'), '0'}
"""
)
"""KEYS log; ARGV an epoch to begin with. Epoch, id and number of the last line; the log is begun if need be."""

APPEND: Final = (
    _LAST
    + """
local epoch, number = ARGV[1], 1
if last then epoch, number = last[2][2], tonumber(last[2][4]) + 1
else redis.call('XADD', KEYS[1], '*', 'e', epoch, 'n', '0') end
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*',
  'e', epoch, 'n', string.format('%.0f', number), 's', ARGV[3], 'i', ARGV[4])
"""
)
"""KEYS log; ARGV an epoch to begin with, lines to keep, sender, invalidation. Numbers the line."""

LOG_STATE: Final = (
    _LAST
    + """
if not last or last[2][2] ~= ARGV[1] then return 'new' end
local own = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if own and own[2][4] == ARGV[3] then return 'ok' end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
local missed = tonumber(first[2][4]) - tonumber(ARGV[3]) - 1
if own or missed < 0 then return 'rollback' end
if missed == 0 then return 'ok' end
return 'trimmed'
"""
)
"""KEYS log; ARGV epoch, id and number of a line. Whether the log tells everything that came after it."""
