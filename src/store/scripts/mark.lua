-- Marks a write whose answer had a position. What is marked already and is later stays; of two
-- positions that cannot be compared neither counts ('-').
-- KEYS[1]: the mark. ARGV: the position, the life in milliseconds, the longest position in bytes.
local new, old = ARGV[1], redis.call('GETRANGE', KEYS[1], 0, ARGV[3])

local function is_number(text)
  return text:find('^[1-9]%d*$') ~= nil
end

-- By bytes: the language's own comparison goes by the server's locale.
local function is_before(one, other)
  if #one ~= #other then
    return #one < #other
  end
  for at = 1, #one do
    local a, b = one:byte(at), other:byte(at)
    if a ~= b then
      return a < b
    end
  end
  return false
end

if old ~= '' and old ~= new then
  if old == '-' or #old ~= #new and not (is_number(old) and is_number(new)) then
    new = '-'
  elseif is_before(new, old) then
    new = old
  end
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
return 1
