local patterns = { "tenant:%s*(%d+)", "shard_key:%s*(%d+)" }

return {
  api = 1, kind = "extractor", name = "tagged",
  extract = function(statement, params, options)
    for _, pattern in ipairs(patterns) do
      local key = string.match(statement.sql, pattern)
      if key then
        return tonumber(key)
      end
    end
    if statement.kind == "INSERT" and params and params[1] ~= nil then
      return params[1]
    end
    return nil, "no tag in " .. string.sub(statement.sql, 1, 20)
  end,
}
