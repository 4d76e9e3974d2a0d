-- Removes those of these entries that are of an older epoch, or unreadable.
-- KEYS: state, then the entries. ARGV: epoch. Answers how many were removed; -1 if this epoch is over.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return -1 end
local removed = 0
for i = 2, #KEYS do
    local text = redis.pcall('GET', KEYS[i])
    local sound, entry = pcall(cjson.decode, text)
    if not sound or type(entry) ~= 'table' or (tonumber(entry.epoch) or 0) < tonumber(ARGV[1]) then
        removed = removed + redis.call('DEL', KEYS[i])
    end
end
return removed
