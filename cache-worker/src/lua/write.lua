-- Writes entries, each only if it is newer than what is there; then moves the cursor, if asked to.
-- KEYS: state, in_step; then for each entry: its key, the key of its lease.
-- ARGV: epoch, cursor as the worker knows it, new cursor or '', in_step or '', time to live in ms;
--       then for each entry: version, text.
-- Answers 'fenced' (this epoch is over: nothing was written), 'moved' and the cursor that is there (the entries were
-- written, the cursor was not moved) or 'done'; and how many entries were written.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return { 'fenced', '', 0 } end
local epoch, written = tonumber(ARGV[1]), 0
for i = 3, #KEYS, 2 do
    local version, text = tonumber(ARGV[i + 3]), ARGV[i + 4]
    if may_replace(KEYS[i], epoch, version) then
        -- SET comes first: where Redis is full it fails, and then nothing has been done.
        redis.call('SET', KEYS[i], text, 'PX', ARGV[5])
        redis.call('DEL', KEYS[i + 1])
        written = written + 1
    end
end
if ARGV[3] ~= '' then
    local cursor = redis.call('HGET', KEYS[1], 'cursor') or ''
    if cursor ~= ARGV[2] and cursor ~= ARGV[3] then return { 'moved', cursor, written } end
    redis.call('HSET', KEYS[1], 'cursor', ARGV[3])
    if ARGV[4] ~= '' then redis.call('SET', KEYS[2], ARGV[4]) end
end
return { 'done', '', written }
