--- What a row is to reach: a text for the table, and whether figures hold it.
-- `holds(row)` gets the spreads `ours`, and where there is a peer, `peer` and `ratio` (ours / peer).
local target = {}

--- A ratio of at least `n`.
function target.at_least(n)
  return {
    text = (">= %g x"):format(n),
    holds = function(row)
      return row.ratio.median >= n
    end,
  }
end

--- A ratio of at most `n`.
function target.at_most(n)
  return {
    text = ("<= %g x"):format(n),
    holds = function(row)
      return row.ratio.median <= n
    end,
  }
end

--- More than the peer's, for rates.
target.faster = {
  text = "> 1 x",
  holds = function(row)
    return row.ratio.median > 1
  end,
}

--- At most the peer's figure times `n`, and `more` seconds on top of it.
function target.within(n, more)
  return {
    text = ("<= %g x + %g ms"):format(n, more * 1e3),
    holds = function(row)
      return row.ours.median <= row.peer.median * n + more
    end,
  }
end

--- Our figure below a limit, whatever the peer's.
-- @number limit
-- @string text
function target.below(limit, text)
  return {
    text = text,
    holds = function(row)
      return row.ours.median <= limit
    end,
  }
end

return target
