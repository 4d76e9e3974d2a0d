-- Reserves: one key, one effect; never more than there is; a hold that ends; a record. As the SQL functions do.
-- KEYS: claim, level, holds, ledger. ARGV: key, sku, location, quantity, seconds to hold.
local earlier = redis.call('GET', KEYS[1])
local request = ARGV[2] .. '|' .. ARGV[3] .. '|' .. ARGV[4]
if earlier then
    local asked, answer = string.match(earlier, '^(.*)\n(.*)$')
    if asked ~= request then return {'key_conflict', '', 0} end
    return {'reserved', answer, 1}
end
local level = redis.call('HMGET', KEYS[2], 'on_hand', 'reserved', 'version')
local quantity = tonumber(ARGV[4])
local on_hand, reserved, version = tonumber(level[1]), tonumber(level[2]) + quantity, tonumber(level[3]) + 1
if reserved > on_hand then return {'insufficient_stock', '', 0} end
local expires = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[5])
local answer = (on_hand - reserved) .. ' ' .. version .. ' ' .. expires
redis.call('HSET', KEYS[2], 'reserved', reserved, 'version', version)
redis.call('SET', KEYS[1], request .. '\n' .. answer)
redis.call('ZADD', KEYS[3], expires, ARGV[1])
redis.call('XADD', KEYS[4], '*', 'key', ARGV[1], 'operation', 'reserve', 'sku', ARGV[2], 'location', ARGV[3],
    'quantity', ARGV[4], 'on_hand_after', on_hand, 'reserved_after', reserved, 'version', version)
return {'reserved', answer, 0}
