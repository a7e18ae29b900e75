-- Counts the hits of one request, all or none, as src/ratelimit/algorithms does: the same states, the same answers.
--
-- KEYS: one counter an ask; then, of each ask whose letter is a capital, the grant that pays first.
-- ARGV: the time (0: that of this server), milliseconds that states are kept beyond their use, 1 if each ask is for
-- itself; then for each ask: algorithm, hits allowed, four numbers of the algorithm, what is wanted, how much, role, and
-- one number more: of hits that are charged, how many parts of the span ago they came.
-- Answers the time, then for each ask: allowed (0 or 1), remaining, reset, how much was charged, milliseconds until the
-- state is none, the state.
--
-- Numbers are doubles, so whole and exact up to 2^53; products that may be larger are divided step by step.
local MAX = 9007199254740991
local DROPS, PARTS, U32 = 1000, 8, 4294967295
local GCRA, FIXED, ALIGNED, SLIDING, CALENDAR, GAUGE = 0, 1, 2, 3, 4, 5
local BINDING, SHADOW = -1, -2
local fmod, min, max = math.fmod, math.min, math.max

local now = tonumber(ARGV[1])
if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
end

local function div(a, b) return (a - fmod(a, b)) / b end

-- a * b / c, rounded down, and what is left.
local function muldiv(a, b, c)
    local product = a * b
    if product <= MAX then
        local rest = fmod(product, c)
        return (product - rest) / c, rest
    end
    local whole, part = div(b, c), fmod(b, c)
    local quotient, rest, bit = 0, 0, 4503599627370496
    while bit > a do bit = bit / 2 end
    while bit >= 1 do
        quotient, rest = quotient * 2, rest * 2
        if rest >= c then quotient, rest = quotient + 1, rest - c end
        if a >= bit then
            a, quotient, rest = a - bit, quotient + whole, rest + part
            if rest >= c then quotient, rest = quotient + 1, rest - c end
        end
        bit = bit / 2
    end
    return quotient, rest
end

local function muldiv_up(a, b, c)
    local quotient, rest = muldiv(a, b, c)
    return rest > 0 and quotient + 1 or quotient
end

-- A state is {at, used} or {at, used, earlier × 8}, by algorithm.
local function none(width)
    local state = {}
    for i = 1, width do state[i] = 0 end
    return state
end

local function copy(state)
    local other = {}
    for i = 1, #state do other[i] = state[i] end
    return other
end

local function equal(a, b)
    for i = 1, #a do
        if a[i] ~= b[i] then return false end
    end
    return true
end

local function is_none(state)
    for i = 1, #state do
        if state[i] ~= 0 then return false end
    end
    return true
end

local function text(state)
    if is_none(state) then return '' end
    local words = {}
    for i = 1, #state do words[i] = string.format('%.0f', state[i]) end
    return table.concat(words, ' ')
end

local function verdict(allowed, state, remaining, reset, idle)
    return {allowed = allowed, state = state, remaining = max(0, remaining), reset = max(0, reset), idle = idle}
end

local function gcra(l, state, hit, n)
    local capacity, rate, period = (l.b + 1) * DROPS, l.requests * DROPS, max(1, l.a)
    local function draining(drops)
        if drops == 0 then return 0 end
        if rate == 0 then return MAX end
        return min(MAX, muldiv_up(drops, period, rate))
    end
    local at = state[1]
    local level = max(0, state[2] - muldiv(rate, max(0, now - at), period))
    local function moved(used) return {max(now, at), min(used, MAX)} end
    local allowed, wanted = true, 0
    if hit == 'r' then
        level = max(0, level - n * DROPS)
        state = moved(level)
    elseif hit == 'c' then
        level = level + n * DROPS
        allowed, state = level <= capacity, moved(level)
    else
        wanted = max(n, 1) * DROPS
        allowed = level + wanted <= capacity
        if allowed and n > 0 then
            level = level + wanted
            state = moved(level)
        end
    end
    local idle = min(MAX, state[1] + draining(state[2]))
    local free = idle
    if not allowed and wanted <= capacity then
        free = min(MAX, state[1] + draining(max(0, state[2] + wanted - capacity)))
    end
    return verdict(allowed, state, div(max(0, capacity - level), DROPS), free - now, idle)
end

-- What a window that holds `before` hits says; the hits that it holds then.
local function windowed(limit, before, hit, n)
    if hit == 'r' then return true, max(0, before - n) end
    if hit == 'c' then return before + n <= limit, min(MAX, before + n) end
    local allowed = before + max(n, 1) <= limit
    return allowed, allowed and before + n or before
end

local function fixed(l, state, hit, n)
    local fresh = state[2] == 0 or now >= state[1] + l.a
    local at, before = state[1], state[2]
    if fresh then at, before = now, 0 end
    local allowed, used = windowed(l.requests, before, hit, n)
    if used ~= before then state = {at, used} end
    local ends = used == 0 and now or at + l.a
    return verdict(allowed, state, l.requests - used, ends - now, ends)
end

local function of_clock(l, state, hit, n, starts, ends)
    local before = state[1] == starts and state[2] or 0
    local allowed, used = windowed(l.requests, before, hit, n)
    if used ~= before then state = used == 0 and none(2) or {starts, used} end
    local left = used == 0 and 0 or max(0, ends - now)
    return verdict(allowed, state, l.requests - used, left, now + left)
end

local function aligned(l, state, hit, n)
    local window = max(1, l.a)
    local starts = div(now, window) * window
    return of_clock(l, state, hit, n, starts, starts + window)
end

-- The period before the caller's, its own and the one after: what its clock is off matters not. A block says another number
-- in place of the end of that one, which then is taken to be as long as the one before: it is a moment after its beginning.
local function calendar(l, state, hit, n)
    if now < l.b then return of_clock(l, state, hit, n, l.a, l.b) end
    if now < l.c then return of_clock(l, state, hit, n, l.b, l.c) end
    return of_clock(l, state, hit, n, l.c, l.hit == 'l' and 2 * l.c - l.b or l.d)
end

local function parts_index(span) return div(now * PARTS, span) end

local function parts_start(span, index)
    local product = index * span
    local rest = fmod(product, PARTS)
    return rest > 0 and (product - rest) / PARTS + 1 or product / PARTS
end

local function parts_total(state)
    local sum = state[2]
    for i = 3, 10 do sum = sum + state[i] end
    return sum
end

-- The state with the part of this number under way.
local function parts_at(state, index)
    local gone = is_none(state) and MAX or max(0, index - state[1])
    if gone == 0 then return state end
    local moved = none(10)
    moved[1] = index
    if gone <= PARTS then
        moved[2 + gone] = min(U32, state[2])
        for i = gone + 1, PARTS do moved[2 + i] = state[2 + i - gone] end
    end
    return moved
end

local function out_rate(state, limit) return min(state[10] * PARTS, limit) end

local function parts_used(span, state, limit)
    local passed = min(max(0, now * PARTS - state[1] * span), span)
    local out = muldiv(out_rate(state, limit), passed, PARTS * span)
    return max(0, parts_total(state) - out)
end

local function parts_falls_to(span, state, limit, room)
    for _ = 0, PARTS do
        local too_many, rate, passed = max(0, parts_total(state) - room), out_rate(state, limit), nil
        if too_many == 0 then
            passed = 0
        elseif rate > 0 then
            passed = muldiv_up(too_many, PARTS * span, rate)
            if passed >= span then passed = nil end
        end
        if passed then
            local product = state[1] * span + passed
            local rest = fmod(product, PARTS)
            return rest > 0 and (product - rest) / PARTS + 1 or product / PARTS
        end
        state = parts_at(state, state[1] + 1)
    end
    return parts_start(span, state[1])
end

local function parts_idle(span, state)
    for age = 0, PARTS do
        if state[2 + age] > 0 then return parts_start(span, max(0, state[1] - age) + PARTS + 1) end
    end
    return now
end

local function parts_add(state, n, age)
    local added, part = copy(state), 2 + (age or 0)
    if part <= 2 + PARTS then added[part] = min(U32, added[part] + n) end
    return added
end

local function parts_give_back(state, n)
    local given = copy(state)
    for i = 2, 10 do
        local taken = min(given[i], n)
        given[i], n = given[i] - taken, n - taken
    end
    return parts_total(given) == 0 and none(10) or given
end

local function sliding(l, state, hit, n)
    local span, limit = max(1, l.a), l.requests
    local seen = parts_at(state, parts_index(span))
    local allowed, after, wanted = true, state, 0
    if hit == 'r' then
        after = parts_give_back(seen, n)
    elseif hit == 'c' then
        local charged = n > 0 and parts_add(seen, n, l.more) or seen
        allowed = parts_used(span, charged, limit) <= limit
        if n > 0 then after = charged end
    else
        wanted = max(n, 1)
        allowed = parts_used(span, seen, limit) + wanted <= limit
        if allowed and n > 0 then after = parts_add(seen, n) end
    end
    local counted = equal(after, state) and seen or after
    local idle = parts_idle(span, counted)
    local free = idle
    if not allowed and limit >= wanted then free = parts_falls_to(span, counted, limit, limit - wanted) end
    return verdict(allowed, after, limit - parts_used(span, counted, limit), free - now, idle)
end

local function gauge(l, state, hit, n)
    local span, limit = max(1, l.a), l.requests
    local index = parts_index(span)
    local held = parts_at(state, index)
    local allowed = true
    if hit == 'r' then
        state = parts_give_back(held, n)
    elseif hit == 'c' then
        if n > 0 then state = parts_add(held, n, l.more) end
        allowed = parts_total(parts_at(state, index)) <= limit
    else
        allowed = parts_total(held) + max(n, 1) <= limit
        if n > 0 then state = parts_add(held, n) end
    end
    held = parts_at(state, index)
    return verdict(allowed, state, limit - parts_total(held), 0, parts_idle(span, held))
end

local ALGORITHMS = {
    [GCRA] = gcra, [FIXED] = fixed, [ALIGNED] = aligned, [SLIDING] = sliding, [CALENDAR] = calendar, [GAUGE] = gauge,
}

local function has_parts(ask) return ask.algorithm == SLIDING or ask.algorithm == GAUGE end

-- A clock that was set back locks nobody out: what was counted later is taken to have been counted now.
local function not_later(ask, state)
    local at = now
    if ask.algorithm == ALIGNED or ask.algorithm == CALENDAR then return state end
    if has_parts(ask) then at = parts_index(max(1, ask.a)) end
    if state[1] > at then state[1] = at end
    return state
end

local function load(ask)
    local width = has_parts(ask) and 10 or 2
    local kept, state, i = redis.call('GET', ask.key), none(width), 0
    if not kept then return state end
    for word in string.gmatch(kept, '%d+') do
        i = i + 1
        if i <= width then state[i] = tonumber(word) end
    end
    return not_later(ask, state)
end

local function count(ask, state, hit, n)
    return ALGORITHMS[ask.algorithm](ask, state, hit, n)
end

local asks, names = {}, (#ARGV - 3) / 10
for i = 1, names do
    local from = 3 + (i - 1) * 10
    local function number(at) return tonumber(ARGV[from + at]) end
    asks[i] = {
        key = KEYS[i], algorithm = number(1), requests = number(2), a = number(3), b = number(4), c = number(5),
        d = number(6), hit = string.lower(ARGV[from + 7]), n = number(8), role = number(9), more = number(10),
    }
    if asks[i].hit ~= ARGV[from + 7] then
        names = names + 1
        asks[i].grant = KEYS[names]
    end
end

-- What is wanted, as hits of the algorithm. A block ('l') is as much as is wise to lend, at least what is needed (more);
-- what comes back of one ('g') is worth something until its window ends (more). `d` is what may be lent in any case.
local function wanted(ask, state)
    if ask.hit == 'l' then
        local remaining = count(ask, state, 't', 0).remaining
        return 't', max(ask.more, min(ask.n, remaining, max(div(remaining, 8), ask.d)))
    elseif ask.hit == 'g' then
        return 'r', now < ask.more and ask.n or 0
    end
    return ask.hit, ask.n
end

local kept, states = {}, {}
-- What grants had, false if there is none, and have left.
local had, left = {}, {}

-- What a grant pays of these hits, and whether that is all there is to be paid.
local function pays(ask, hit, n)
    local has = hit ~= 'r' and ask.grant and left[ask.grant] or 0
    return min(has, n), has > 0 and has >= n
end

local function run(refused)
    local verdicts = {}
    for key, state in pairs(kept) do states[key] = state end
    for grant, hits in pairs(had) do left[grant] = hits or 0 end
    for i, ask in ipairs(asks) do
        local before = states[ask.key]
        local hit, n = wanted(ask, before)
        local paid, whole = pays(ask, hit, n)
        local said = refused and refused[i]
        local answer
        if whole and (not said or hit ~= 't') then
            -- Whatever the counter says, it refuses nothing.
            answer = count(ask, before, 't', 0)
            answer.allowed = true
        elseif not said or hit ~= 't' or ask.algorithm == GAUGE then
            answer = count(ask, before, hit, n - paid)
        elseif said.allowed then
            -- Nothing is taken, since the request does not go through.
            answer = count(ask, before, 't', 0)
            answer.allowed = true
        else
            said.state = before
            answer = said
        end
        if ask.grant then
            if hit == 'r' then
                left[ask.grant] = left[ask.grant] + ask.more
            elseif hit == 'c' or answer.allowed and not said then
                left[ask.grant] = left[ask.grant] - paid
            end
            if said then answer.allowed = said.allowed end
        end
        answer.charged = n - paid
        states[ask.key] = answer.state
        verdicts[i] = answer
    end
    return verdicts
end

local function admitted(verdicts)
    local groups, quotas, exhausted = {}, false, true
    for i, ask in ipairs(asks) do
        local refused = not verdicts[i].allowed
        if ask.role == BINDING and refused then return false end
        if ask.role >= 0 then
            groups[ask.role] = groups[ask.role] or refused
            quotas = quotas or refused
        end
    end
    for _, refused in pairs(groups) do exhausted = exhausted and refused end
    return not (quotas and exhausted)
end

for _, ask in ipairs(asks) do
    kept[ask.key] = kept[ask.key] or load(ask)
    if ask.grant then had[ask.grant] = tonumber(redis.call('GET', ask.grant) or nil) or false end
end
local verdicts = run(nil)
if ARGV[3] ~= '1' and not admitted(verdicts) then verdicts = run(verdicts) end

local reply, last = {now}, {}
for i, ask in ipairs(asks) do last[ask.key] = verdicts[i] end
for key, answer in pairs(last) do
    if not equal(states[key], kept[key]) then
        local left = answer.idle - now
        if is_none(states[key]) or left <= 0 then
            redis.call('DEL', key)
        else
            -- What never goes by itself does in a year and a day, after the longest window.
            redis.call('SET', key, text(states[key]), 'PX', min(left + tonumber(ARGV[2]), 31708800000))
        end
    end
end
for grant, hits in pairs(had) do
    -- It ends when it would have.
    if hits and left[grant] ~= hits then redis.call('INCRBY', grant, left[grant] - hits) end
end
for i, answer in ipairs(verdicts) do
    reply[#reply + 1] = answer.allowed and 1 or 0
    reply[#reply + 1] = answer.remaining + (left[asks[i].grant] or 0)
    reply[#reply + 1] = answer.reset
    reply[#reply + 1] = answer.charged
    reply[#reply + 1] = max(0, answer.idle - now)
    reply[#reply + 1] = text(answer.state)
end
return reply
