-- Reads an entry and how old the knowledge is; hands out a lease where there is no entry.
-- KEYS: entry, lease, in_step, state. ARGV: a random token, how long a lease lasts in ms.
-- Answers the entry, in_step, Redis's time in ms, the lease; each false where there is none.
local now = redis.call('TIME')
local milliseconds = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000))
local entry = redis.pcall('GET', KEYS[1])
if type(entry) ~= 'string' then entry = false end
local in_step = redis.call('GET', KEYS[3])
local epoch = redis.call('HGET', KEYS[4], 'epoch')
-- No epoch, no worker that would put right what is filled in.
if entry or not epoch then return { entry, in_step, milliseconds, false } end
-- Readers who miss at the same time share a lease: whatever the worker writes takes it from all of them.
local lease = redis.call('GET', KEYS[2])
if not lease then
    local given = redis.pcall('SET', KEYS[2], epoch .. ':' .. ARGV[1], 'PX', ARGV[2])
    lease = given.ok and epoch .. ':' .. ARGV[1] or false
end
return { entry, in_step, milliseconds, lease }
