-- Begins a rebuild: a new epoch, no cursor, not in step.
-- KEYS: state, in_step, rebuild. ARGV: the worker's token, how long its claim lasts in ms.
-- Answers the new epoch, or nothing while another worker is rebuilding.
local owner = redis.call('GET', KEYS[3])
if owner and owner ~= ARGV[1] then return false end
-- Never below an epoch that was lost with the state: the clock goes on.
local now = redis.call('TIME')
local epoch = math.max((tonumber(redis.call('HGET', KEYS[1], 'epoch')) or 0) + 1, now[1] * 1000 + math.floor(now[2] / 1000))
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', text)
redis.call('HDEL', KEYS[1], 'cursor')
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return text
