-- Ends a rebuild: every entry is of this epoch, and this is the cursor that they speak of.
-- KEYS: state, rebuild. ARGV: epoch, the worker's token, cursor. Answers 1; 0 if this epoch is over.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'cursor', ARGV[3])
if redis.call('GET', KEYS[2]) == ARGV[2] then redis.call('DEL', KEYS[2]) end
return 1
