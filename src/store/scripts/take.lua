-- take: exact / one-sided-quantised sliding window, k policies, all-or-nothing.
-- KEYS[i]    state of policy i (all in one hash slot)
-- ARGV[1]    k records, 21 bytes each, little endian:
--             u32 limit | u48 window_us | u48 quantum_us | u32 cost | u8 mode
--             mode: 0 enforce, 1 observe (over: not charged, others do not mind), 2 force, 3 peek
-- ARGV[1+i]  ceil(2*window_i/1000) as text (PX of a fresh key)
-- reply      one string, which costs less to send and to read than numbers, little endian:
--             u8 allowed | u48 now | per policy { i64 free_before | i64 retry_ms (-1 = cost > limit)
--             | u48 next_ms (some quota comes back) | u48 full_ms (all of it) }
-- value      u32 base | u48 tset | { u48 ts | u32 cum }*      (10-byte header, 10-byte cells)
local up, pk, floor, ceil, call = struct.unpack, struct.pack, math.floor, math.ceil, redis.call
local M = 281474976710656                                  -- 2^48 us = 8.9 years
local P, k = ARGV[1], #KEYS
local t = call('TIME')
local now0 = (t[1]*1000000 + t[2]) % M
local states, val, fresh, at, ok = '', {}, {}, {}, true
for i = 1, k do
  local L, W, Q, c, mode = up('<I4I6I6I4I1', P, 21*i - 20)
  local s = call('GET', KEYS[i])
  local now, used, n, base, tset, lts, lcum, head = now0, 0, 0, 0, 0, 0, 0, 11
  local nxt, full, retry = 0, 0, 0
  if s then
    n = #s
    lts, lcum = up('<I6I4', s, n - 9)                      -- newest cell
    local age = now - lts
    if age < -140737488355328 then age = age + M end       -- 2^48 wrap
    if age < 0 then now = lts; age = 0 end                 -- clock stepped back: clamp (never early)
    if age >= W then s = false; lcum = 0                   -- everything expired
    else
      full = W - age
      local fts
      base, tset, fts = up('<I4I6I6', s)
      nxt = W - (now - fts) % M
      if nxt <= 0 then                                     -- oldest cell dead: binary search first live
        local lo, hi = 1, n/10 - 1
        while hi - lo > 1 do
          local m = floor((lo + hi)/2)
          if (now - up('<I6', s, 10*m + 1)) % M >= W then lo = m else hi = m end
        end
        head = 10*hi + 1
        base = up('<I4', s, head - 4)
        nxt = W - (now - up('<I6', s, head)) % M
      end
      used = (lcum - base) % 4294967296
    end
  end
  if used + c > L then
    retry = -1
    if c <= L then                                         -- first cell whose expiry frees enough
      local need, lo, hi = used + c - L, (head - 11)/10, n/10 - 1
      while hi - lo > 1 do
        local m = floor((lo + hi)/2)
        if (up('<I4', s, 10*m + 7) - base) % 4294967296 >= need then hi = m else lo = m end
      end
      retry = ceil((W - (now - up('<I6', s, 10*hi + 1)) % M)/1000)
    end
    if mode == 1 then c = 0 elseif mode ~= 2 then ok = false end
  end
  if c > 0 and ok and mode ~= 3 then
    local cell = pk('<I6I4', now, (lcum + c) % 4294967296)
    if not s then val[i], fresh[i] = pk('<I4I6', 0, now) .. cell, true
    else
      if (now - tset) % M >= W then tset = now; fresh[i] = true end
      if floor(now/Q) == floor(lts/Q) then n = n - 10 end  -- same quantum: replace newest cell
      if head == 11 and not fresh[i] then
        if n == #s then val[i] = s .. cell else val[i], at[i] = cell, n end  -- in place: no copy, no growth
      else
        val[i] = pk('<I4I6', base, tset) .. s:sub(head, n) .. cell
      end
    end
  end
  states = states .. pk('<i8i8I6I6', L - used, retry, ceil(nxt/1000), ceil(full/1000))
end
if not ok then return pk('<I1I6', 0, now0) .. states end
for i = 1, k do
  if fresh[i] then call('SET', KEYS[i], val[i], 'PX', ARGV[1 + i])
  elseif at[i] then call('SETRANGE', KEYS[i], at[i], val[i])
  elseif val[i] then call('SET', KEYS[i], val[i], 'KEEPTTL') end
end
return pk('<I1I6', 1, now0) .. states
