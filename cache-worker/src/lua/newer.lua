-- What is stored under a key: its epoch and version; nil where there is nothing, an absence, or no entry of ours.
local function stored(key)
    local text = redis.pcall('GET', key)
    if type(text) ~= 'string' then return nil end
    local sound, entry = pcall(cjson.decode, text)
    if not sound or type(entry) ~= 'table' or entry.absent then return nil end
    if type(entry.epoch) ~= 'number' or type(entry.version) ~= 'number' then return nil end
    return entry.epoch, entry.version
end

-- Whether an entry of this epoch and version may replace what is stored. Its own equal may: that renews it.
local function may_replace(key, epoch, version)
    local stored_epoch, stored_version = stored(key)
    if not stored_epoch then return true end
    if stored_epoch ~= epoch then return stored_epoch < epoch end
    return stored_version <= version
end
