-- Fills in what a reader found in the database after a miss, if its lease is still there.
-- KEYS: entry, lease, state. ARGV: the lease, the epoch in it, time to live in ms, version or '' for absence, text.
-- Answers 1 if it was written.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('HGET', KEYS[3], 'epoch') ~= ARGV[2] then return 0 end
if ARGV[4] == '' then
    -- Absence replaces no value.
    if stored(KEYS[1]) then return 0 end
elseif not may_replace(KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[4])) then
    return 0
end
redis.call('SET', KEYS[1], ARGV[5], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
