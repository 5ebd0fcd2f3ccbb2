-- The tenant of an order's reference among the parameters: T42-1001 is order 1001 of tenant 42.
return {
  api = 1, kind = "extractor", name = "order_reference",

  extract = function(_, params)
    for _, value in ipairs(params or {}) do
      local tenant_id = type(value) == "string" and string.match(value, "^T(%d+)%-%d+$")
      if tenant_id then
        return tonumber(tenant_id)
      end
    end
    return nil, "no parameter is an order's reference, such as T42-1001"
  end,
}
