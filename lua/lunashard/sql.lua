--- SQL texts: what a statement is, and whether it may share a connection.
-- @module lunashard.sql

local catalog = require("lunashard.sql.catalog")
local sharing = require("lunashard.sql.sharing")
local statement = require("lunashard.sql.statement")

return {
  --- Analyse a text; see `lunashard.sql.statement.parse`.
  -- @function parse
  parse = statement.parse,
  --- What is known of one database; see `lunashard.sql.catalog.new`.
  -- @function catalog
  catalog = catalog.new,
  --- May a statement share a connection? See `lunashard.sql.sharing.classify`.
  -- @function sharing
  sharing = sharing.classify,
}
