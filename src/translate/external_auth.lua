-- Asks the service that the route names whether to let the request in. Envoy lets a request pass where a script fails, so
-- whatever may fail here is called by pcall.

-- nginx's proxy_read_timeout.
local TIMEOUT_MS = 60000

-- Headers of the connection and the body, and those that nginx clears.
local NOT_SENT = {
  ["connection"] = true, ["content-length"] = true, ["expect"] = true, ["host"] = true, ["keep-alive"] = true,
  ["proxy-connection"] = true, ["te"] = true, ["trailer"] = true, ["transfer-encoding"] = true, ["upgrade"] = true,
  ["x-forwarded-proto"] = true,
}

-- The answers to which nginx's add_header adds.
local WITH_COOKIES = {
  ["200"] = true, ["201"] = true, ["204"] = true, ["206"] = true, ["301"] = true, ["302"] = true, ["303"] = true,
  ["304"] = true, ["307"] = true, ["308"] = true,
}

local function is_sent(name)
  -- Pseudo headers, orders to Envoy, and what Envoy finds routes by.
  local own = string.find(name, "^:") or string.find(name, "^x%-envoy%-") or string.find(name, "^x%-chancery%-")
  return not own and not NOT_SENT[name]
end

-- The values of a header that there may be none or several of.
local function values(header)
  if type(header) == "table" then return header end
  return {header}
end

-- What URLs may have of the request.
local function variables(headers)
  local authority, path = headers:get(":authority"), headers:get(":path")
  local escape = function(character) return string.format("%%%02X", string.byte(character)) end
  return {
    scheme = headers:get("x-scheme"),
    host = string.lower((string.gsub(authority, ":%d*$", ""))),
    http_host = authority,
    best_http_host = authority,
    -- A method may have characters that mean something in a URL.
    request_method = (string.gsub(headers:get(":method"), "[^%w%-%._~]", escape)),
    request_uri = path,
    escaped_request_uri = (string.gsub(path, "[^%w%-%._~]", escape)),
  }
end

local function expand(template, known)
  return (string.gsub(template, "%$([%w_]+)", known))
end

local function question(context, headers, known)
  local question = {}
  for name, value in pairs(headers) do
    if is_sent(name) then
      question[name] = question[name] or {}
      table.insert(question[name], value)
    end
  end
  -- Of a header that is counted the first counts. Were another one asked about, a client could be let in by it each time.
  for _, name in ipairs(context:get("counted") or {}) do
    if question[name] ~= nil then question[name] = question[name][1] end
  end
  question[":method"] = context:get("method")
  question[":authority"] = context:get("host")
  question[":path"] = expand(context:get("path"), known)
  question["x-original-url"] = known.scheme .. "://" .. known.http_host .. known.request_uri
  question["x-original-method"] = headers:get(":method")
  question["x-auth-request-redirect"] = known.request_uri
  question["x-sent-from"] = "nginx-ingress-controller"
  -- A connection that was kept may have been closed meanwhile. Envoy takes these for itself.
  question["x-envoy-retry-on"] = "connect-failure,refused-stream,reset-before-request"
  question["x-envoy-max-retries"] = "2"
  return question
end

-- What the upstream, and later the client, gets of an answer that lets the request in. Without what the request is counted
-- by it is not let in: that would be no limit.
local function let_in(handle, answer)
  local headers = handle:headers()
  for _, name in ipairs(handle:filterContext():get("headers")) do
    headers:remove(name)
    local value = table.concat(values(answer[name]), ", ")
    if value ~= "" then headers:add(name, value) end
  end
  for _, name in ipairs(handle:filterContext():get("required") or {}) do
    if headers:get(name) == nil then return {[":status"] = "401"} end
  end
  if answer["set-cookie"] ~= nil then
    handle:streamInfo():dynamicMetadata():set("chancery.external_auth", "cookies", values(answer["set-cookie"]))
  end
  return nil
end

-- The client's answer; nil lets the request in.
local function refusal(handle)
  local known = variables(handle:headers())
  local context = handle:filterContext()
  local answer = handle:httpCall(
    context:get("cluster"),
    question(context, handle:headers(), known),
    nil,
    {timeout_ms = TIMEOUT_MS, return_duplicate_headers = true, send_xff = false}
  )
  -- Whatever came of the handle before the call must not be used after it.
  local status, signin = answer[":status"], handle:filterContext():get("signin")
  if string.find(status, "^2") then
    return let_in(handle, answer)
  end
  if status == "401" and signin ~= nil then
    return {[":status"] = "302", ["location"] = expand(signin, known), ["set-cookie"] = answer["set-cookie"]}
  end
  if status == "401" or status == "403" then
    return {[":status"] = status, ["www-authenticate"] = answer["www-authenticate"]}
  end
  return {[":status"] = "500"}
end

function envoy_on_request(handle)
  local asked, refused = pcall(refusal, handle)
  if not asked then
    handle:logErr("external_auth: " .. tostring(refused))
    refused = {[":status"] = "500"}
  end
  if refused ~= nil then handle:respond(refused) end
end

function envoy_on_response(handle)
  local told = handle:streamInfo():dynamicMetadata():get("chancery.external_auth")
  if told == nil or not WITH_COOKIES[handle:headers():get(":status")] then return end
  for _, cookie in ipairs(told["cookies"]) do handle:headers():add("set-cookie", cookie) end
end
