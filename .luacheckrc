std = "luajit"
max_line_length = 130
include_files = { "lua/**/*.lua", "spec/**/*.lua", "scripts/**/*.lua", "examples/*.lua" }
unused_args = true
self = false

-- What `lunashard run -c` sets.
files["examples"] = { read_globals = { "cluster", "manager", "router" } }
files["scripts"] = { read_globals = { "cluster", "manager", "router" } }
files["spec"] = { std = "+busted" }
-- It replaces what the standard library has.
files["lua/lunashard/prelude.lua"] = { globals = { "coroutine", "os", "package" } }
-- Declarations for editors, which are never run; and plug-ins to be mutated.
exclude_files = { "**/*.d.lua", "spec/corpus/**" }
