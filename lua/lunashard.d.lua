---@meta lunashard
-- For editors: the API as the Lua language server reads it. Made by `make annotations`; do not edit it.

---@alias lunashard.ErrorCode "AUTH"|"CANCELED"|"CLOSED"|"INVALID"|"JOB_OPEN"|"KEY_MISMATCH"|"LOCK_HELD"|"NOT_MERGEABLE"|"NO_KEY"|"NO_SHARD"|"NULL_KEY"|"PLACEMENT_CHANGED"|"PLUGIN_FAILED"|"POOL_EXHAUSTED"|"READ_ONLY"|"RESULT_TOO_LARGE"|"SHARDS_FAILED"|"SHARD_DOWN"|"SQL"|"STALE_MAP"|"TIMEOUT"|"UNKNOWN_OUTCOME"

---@class lunashard.ReplicaOptions
---@field channel_binding? "disable"|"prefer"|"require"
---@field database? string
---@field host string
---@field keepalives? number
---@field keepalives_count? number
---@field keepalives_idle? number
---@field keepalives_interval? number
---@field passfile? string
---@field password? string
---@field pipeline? boolean
---@field pool_size? number
---@field port? number [5432]
---@field read_batches? boolean
---@field region? string
---@field ssl_max_protocol_version? string
---@field ssl_min_protocol_version? string
---@field sslcert? string
---@field sslcrl? string
---@field sslcrldir? string
---@field sslkey? string
---@field sslmode? "disable"|"allow"|"prefer"|"require"|"verify-ca"|"verify-full"
---@field sslpassword? string
---@field sslrootcert? string
---@field sslsni? string
---@field tags? table
---@field tcp_user_timeout? number
---@field user? string

---@class lunashard.ShardOptions
---@field channel_binding? "disable"|"prefer"|"require"
---@field database string
---@field host string
---@field keepalives? number
---@field keepalives_count? number
---@field keepalives_idle? number
---@field keepalives_interval? number
---@field metadata? table
---@field passfile? string
---@field password? string
---@field pipeline? boolean
---@field pool_size? number
---@field port? number [5432]
---@field read_batches? boolean
---@field region? string
---@field replicas? lunashard.ReplicaOptions[]
---@field shard_id string
---@field ssl_max_protocol_version? string
---@field ssl_min_protocol_version? string
---@field sslcert? string
---@field sslcrl? string
---@field sslcrldir? string
---@field sslkey? string
---@field sslmode? "disable"|"allow"|"prefer"|"require"|"verify-ca"|"verify-full"
---@field sslpassword? string
---@field sslrootcert? string
---@field sslsni? string
---@field tags? table
---@field tcp_user_timeout? number
---@field user? string
---@field weight? number [1]

---@class lunashard.TableOptions
---@field reference? boolean [false]
---@field shard_key? string|table
---@field type? string|table

--- What a cluster file returns, and lunashard.manager takes.
---@class lunashard.ClusterOptions
---@field allow_placement_change? boolean [false]
---@field application_name? string
---@field catalog? table|string
---@field choose_primary? fun(candidates: table[], shard: lunashard.Shard): string|table|false|nil
---@field connection_pool_min? number [0]
---@field connection_pool_size? number [20]
---@field connection_timeout? number [5]
---@field enable_auto_failover? boolean [true]
---@field environment? string
---@field extractor? any
---@field health_check_interval? number [30]
---@field health_check_timeout? number [2]
---@field hedge? number|table
---@field idle_timeout? number [300]
---@field jobs? table[]
---@field max_consecutive_failures? number [3]
---@field max_lifetime? number [3600]
---@field max_parallel_shards? number
---@field max_plugin_failures? number [5]
---@field max_replica_lag? number|table [10]
---@field max_result_bytes? number [268435456]
---@field max_waiters? number [10000]
---@field name? string
---@field on_health? fun(event: lunashard.Event)
---@field on_plugin? function
---@field pipeline? boolean [true]
---@field plugin_memory? number [67108864]
---@field plugin_time? number [0.05]
---@field plugins? string
---@field promote? boolean [false]
---@field query_timeout? number [30]
---@field read_batches? boolean [true]
---@field read_only? boolean
---@field require_all? boolean [false]
---@field retries? number [2]
---@field retry_budget? number [0.2]
---@field shards? lunashard.ShardOptions[]
---@field slow_log? number
---@field slow_log_parameters? boolean [false]
---@field slow_statement? number [0.05]
---@field statement_cache? number [256]
---@field strategy? string|table|lunashard.Strategy
---@field tables? table<string, lunashard.TableOptions>
---@field trusted_plugins? string[]

---@class lunashard.RouterOptions
---@field extractor? any
---@field hedge? any
---@field max_parallel_shards? number
---@field max_result_bytes? number
---@field query_timeout? number
---@field retries? number
---@field retry_budget? number
---@field shard_manager lunashard.Manager

--- What a function returns beside nil when something failed. Decide by `code`.
---@class lunashard.Error
---@field code lunashard.ErrorCode
---@field message string one line
---@field retryable boolean
---@field shard_id? string
---@field endpoint? string `host:port`
---@field sqlstate? string five characters
---@field detail? string
---@field hint? string
---@field position? integer of the character in the statement, from 1
---@field cause? any what it comes from
---@field traceback? string of a function of yours that raised
---@field elapsed? number seconds since the call began
---@field attempts? integer
---@field failed? lunashard.Failure[] of SHARDS_FAILED
---@field total? integer of SHARDS_FAILED: how many shards were asked

---@class lunashard.Failure
---@field shard_id string
---@field error lunashard.Error

--- What a statement gave: on one shard, or on several, with `shard_results` then.
---@class lunashard.Result
---@field rows table<string, any>[] by column; a NULL is an absent field
---@field columns? string[]
---@field column_types? string[]
---@field row_count integer
---@field command? string the command tag's first word
---@field duration number seconds
---@field success boolean
---@field shard_id? string of one shard
---@field endpoint? string `host:port`, of one shard
---@field attempts? integer of one shard
---@field lsn? string of a write; asked of the primary when it is looked at
---@field shard_results? table<string, table> by shard_id
---@field complete? boolean of several shards: false when some are missing, which takes on_failure or min_shards
---@field failed? lunashard.Failure[] of several shards
---@field split? table<string, integer> by shard_id: how many of the statement's rows or keys went there

--- What execute_on_all_shards did.
---@class lunashard.BroadcastResult
---@field complete boolean
---@field success boolean
---@field done string[] shard_ids
---@field skipped string[] shard_ids
---@field failed lunashard.Failure[]
---@field shard_results table<string, table> by shard_id
---@field duration number seconds

--- What router:explain says.
---@class lunashard.Plan
---@field kind "read"|"write"|"key"
---@field word? string the statement's first word
---@field source? string what names the shard: routing_key, shard_id, table, or the extractor
---@field found? string what the extractor found
---@field table? string the declared table that the keys are of
---@field keys? any[] the key, when it is one
---@field bucket? integer|string
---@field strategy? string
---@field shards string[] shard_ids
---@field shard_id? string when it is one
---@field any? boolean any one of the shards answers
---@field split? table<string, integer> by shard_id: how many keys or rows are its
---@field split_in? "key"|"row"
---@field endpoints table<string, any> by shard_id
---@field endpoint_kinds table<string, string> by shard_id
---@field statements? table<string, table> by shard_id: sql and params
---@field steps? string[] what becomes of the answers
---@field assumed? boolean no catalog was asked
---@field reason string
local Plan = {}

--- A plain tree for JSON. Of parameters only keys are in it, as text.
---@return table
function Plan:to_table() end

---@class lunashard.ClusterStatus
---@field healthy_shards integer whose primary is healthy and gets writes
---@field total_shards integer
---@field error_rate number 0 to 1
---@field shards table<string, table> by shard_id
---@field alerts table[] each with kind and message
---@field plugins table[] each with kind, name, path, generation, state, trusted, failures, problem

--- A shard, without secrets.
---@class lunashard.Shard
---@field shard_id string
---@field host string
---@field port integer
---@field database string
---@field user? string
---@field region? string
---@field weight? number
---@field tags? table
---@field sslmode? string
---@field pool_size? integer
---@field metadata? table
---@field replicas? table[]

--- What a file in plugins/strategies returns: bucket and place, or route.
---@class lunashard.StrategyPlugin
---@field api 1
---@field kind "strategy"
---@field name string
---@field options? string[] the names of its options; without it any are taken
---@field new fun(options: table, shards: lunashard.Shard[]): any its state
---@field bucket? fun(state: any, key: any): integer|string|nil, string? pure, and never changes for a key
---@field place? fun(state: any, bucket: integer|string, shards: lunashard.Shard[]): string?, string? a shard_id; pure
---@field route? fun(state: any, key: any): string?, string? a shard_id; pure
---@field upgrade? fun(old_state: any, new_state: any): any takes over what the version before had

--- What a file in plugins/aggregates returns: init, step, merge and finish, or aggregate.
---@class lunashard.AggregatePlugin
---@field api 1
---@field kind "aggregate"
---@field name string
---@field returns? "row"|"rows" what finish gives
---@field new? fun(...: any): any its options
---@field init? fun(options: any): any an empty accumulator
---@field step? fun(acc: any, row: table, shard_id: string, types?: table<string, string>): any
---@field merge? fun(a: any, b: any): any
---@field finish? fun(acc: any): table a row or a list of rows
---@field aggregate? fun(options: any, results: table[]): table
---@field types? fun(acc: any): table<string, string> column name -> SQL type

--- What a file in plugins/extractors returns.
---@class lunashard.ExtractorPlugin
---@field api 1
---@field kind "extractor"
---@field name string
---@field new? fun(...: any): any its options
---@field extract fun(statement: lunashard.Statement, params?: table, options?: any): any, string? a key, or nil and why not

--- What an extractor is asked about.
---@class lunashard.Statement
---@field sql string
---@field kind string
---@field tables string[]
---@field ast table PostgreSQL's parse tree

--- What a file in plugins/policies returns.
---@class lunashard.PolicyPlugin
---@field api 1
---@field kind "policy"
---@field name string
---@field new? fun(options: table): table
---@field choose_primary? fun(candidates: table[], shard: lunashard.Shard, options: table): string|table|false|nil
---@field on_health? fun(event: lunashard.Event, options: table)
---@field options? string[] the names of its options
---@field plan? fun(state: lunashard.RebalanceState, options: table): table[]|nil, string? moves, or nil and why there are none
---@field cost? fun(bucket: table, options: table): number what a bucket weighs
---@field capacity? fun(shard: table, options: table): number how much a shard can take
---@field allowed? fun(bucket: table, shard: table, options: table): boolean
---@field measures_load? boolean its plans go by load, which takes seconds to measure
---@field throttle? fun(stats: table, options: table): number seconds to pause after each batch

--- What a policy plans by.
---@class lunashard.RebalanceState
---@field group string
---@field strategy string
---@field residency boolean rows of a region may live on that region's shards only
---@field shards table[] those that can get buckets: shard_id, weight, region, tags, buckets, rows, bytes, load
---@field buckets table[] each with bucket, owner (a shard_id), rows, bytes, load, region, is_giant
---@field place? fun(bucket: any): string|nil, any where the strategy would put it
---@field owned fun(shard_id: string): table[]
---@field shard fun(shard_id: string): table|nil
---@field resides fun(bucket: table, shard: table): boolean
---@field even fun(options?: table): table[]|nil, any moves that even out
---@field deal fun(buckets: table[], options?: table): table[]|nil, any moves that deal these out

--- What happened to a shard or a plug-in.
---@class lunashard.Event
---@field kind string health, failover, fenced, ...
---@field message string
---@field shard_id? string
---@field endpoint? string
---@field from? string
---@field to? string

---@class lunashard.ManagerGetShardForWriteOptions
---@field table? string

---@class lunashard.ManagerAddShardOptions
---@field allow_placement_change? boolean
---@field keys? table
---@field strategy? any

---@class lunashard.ManagerReloadOptions
---@field allow_placement_change? boolean
---@field keys? table

---@class lunashard.Manager
---@field name? string
---@field options table what is in force
---@field strategy lunashard.Strategy
---@field shards lunashard.Shard[]
---@field shard_health table<string, table> by shard_id: of the primary, live
---@field tables table<string, table>
local Manager = {}

--- Open the pools and probe every endpoint once, all at the same time. Yields.
--- From then on they are probed every `health_check_interval` in the background. A shard that is down becomes
--- unhealthy, is warned of, and is in use again when a probe finds it; it is fatal only with `require_all = true`.
--- When text is a declared key type, each shard must use UTF8 and a deterministic collation for the key.
---@return boolean|nil # true
---@return lunashard.Error|nil # `SHARDS_FAILED` (with `require_all`), `INVALID` (text keys in a database that hashes them differently), `CLOSED`
function Manager:initialize() end

--- Close every connection. May be called again; afterwards everything returns `CLOSED`. Yields where there is a catalog,
--- which is told, for half a second at the most.
---@return boolean # true
function Manager:shutdown() end

--- Which shard owns a key, and its bucket, whatever the shard's health. `host` and `port` are the present primary's.
--- Raises for unknown options, as `get_shard_for_read` does.
---@param key any # routing key
---@param opts? lunashard.ManagerGetShardForWriteOptions # `table`: the table whose key it is
---@return lunashard.Shard|nil # the shard: `shard_id`, `host`, `port`, `database`, `region`, `tags`, ...
---@return lunashard.Error|number|string # bucket
function Manager:get_shard_for_write(key, opts) end

--- Which shard a read of a key goes to, and at which endpoint.
---@param key any # routing key
---@param opts? lunashard.ManagerGetShardForWriteOptions # `table`: the table whose key it is
---@return lunashard.Shard|nil # the shard, as from `get_shard_for_write`
---@return lunashard.Error|string # `host:port` of a usable replica, or of the primary
function Manager:get_shard_for_read(key, opts) end

--- The state of one shard.
---@param shard_id string
---@return table|nil # `shard_id`, `region`, `weight`, `primary` (`host:port` that writes go to), `write_refusal` (why none is sent now, or nil), `health` (of the primary), `pool`; `endpoints`: a list, each with the fields of its health record (`status`, `circuit`, `in_recovery`, `timeline`, `lsn`, `lag_bytes`, `lag_seconds`, ... and the guide's), `endpoint`, `role` (what it is now), `configured_role`, `fenced` (why it gets no traffic, or nil); `alerts`: a list of what is wrong, each `{ kind, shard_id, endpoint, message }` with `kind` one of `writes health fenced lag`
---@return lunashard.Error|nil # `NO_SHARD`
function Manager:get_shard_status(shard_id) end

--- The state of the cluster.
---@return lunashard.ClusterStatus # `healthy_shards` (whose primary is healthy and gets writes), `total_shards`, `error_rate` (0 to 1, mean over the shards), `shards` (shard_id -> as from `get_shard_status`), `alerts` (those of all shards, and of kind `plugin`), `plugins`: a list, each with `kind`, `name`, `path`, `generation`, `state` (`active`; `failed`: never loaded; `tripped`: back to an earlier version; `failing`; `missing`: the file is gone), `trusted`, `failures`, `problem`
function Manager:get_cluster_status() end

--- Statistics of a shard's pool.
---@param shard_id string
---@return table|nil # `size`, `used`, `idle`, `waiting`, `max_size`, ... of the primary; `replicas` is a list of the same
---@return lunashard.Error|nil # `NO_SHARD`, `CLOSED`, or `INVALID` before `initialize`
function Manager:get_pool_stats(shard_id) end

--- Add a shard. Yields.
--- Refused while the new map would send keys elsewhere than where their rows are.
--- Raises for wrong shard options.
---@param options lunashard.ShardOptions # as in `shards`
---@param opts? lunashard.ManagerAddShardOptions # `strategy`: the strategy with the shard in it (new ranges, regions); `allow_placement_change = true`: there is no data yet, or it is moved by other means
---@return boolean|nil # true
---@return lunashard.Error|nil # `PLACEMENT_CHANGED` (with `movement`), `INVALID`, `CLOSED`
function Manager:add_shard(options, opts) end

--- Take other options, as those of a new manager, without disturbing what runs. Yields.
--- Shards and replicas may come and go, replicas have another address and the primary too, when the same server
--- answers there; users, passwords, limits, timeouts and health checks may change. New connections are made with the
--- new options, those that are not wanted any more are closed as they come free. Before anything is changed, all of it
--- is checked, and servers with a new address or login are asked whether they will do. Refused is what would make keys
--- belong to another shard (see `add_shard`), a change of a table's key, of `name`, `database` or `plugins`.
--- An option that is not given has its default again; without `strategy` the present one stays.
---@param options lunashard.ClusterOptions # as for `new`
---@param opts? lunashard.ManagerReloadOptions # `allow_placement_change`, `keys`: as for `add_shard`
---@return table[]|nil # what changed, each with `what`, `message`, and where known `shard_id` and `endpoint`
---@return lunashard.Error|nil # `INVALID`, `PLACEMENT_CHANGED` (with `movement`), `AUTH`, `SHARDS_FAILED`, `CLOSED`
function Manager:reload(options, opts) end

--- Remove a shard and close its connections.
--- Refused while keys live there, and for the last one.
---@param shard_id string
---@param opts? lunashard.ManagerAddShardOptions # as for `add_shard`
---@return boolean|nil # true
---@return lunashard.Error|nil # `NO_SHARD`, `PLACEMENT_CHANGED` (with `movement`), `INVALID`, `CLOSED`
function Manager:remove_shard(shard_id, opts) end

---@class lunashard.RouterExecuteOptions
---@field after? any
---@field all_shards? boolean
---@field decode_json? boolean
---@field hedge? any
---@field max_replica_lag? any
---@field max_result_bytes? integer
---@field pipeline? boolean
---@field read_only? boolean
---@field retries? integer
---@field routing_key? any
---@field shard_id? string
---@field table? string
---@field timeout? number seconds

---@class lunashard.RouterScatterGatherOptions
---@field after? any
---@field aggregation_func? any
---@field all_shards? boolean
---@field decode_json? boolean
---@field hedge? any
---@field max_parallel_shards? integer
---@field max_replica_lag? any
---@field max_result_bytes? integer
---@field min_shards? integer
---@field on_failure? string
---@field pipeline? boolean
---@field read_only? boolean
---@field retries? integer
---@field shard_ids? table
---@field timeout? number seconds

---@class lunashard.RouterExecuteOnAllShardsOptions
---@field canary? string
---@field on_failure? string
---@field parallel? any
---@field shard_ids? table
---@field stop_on_error? boolean
---@field timeout? number seconds

---@class lunashard.RouterTransactionOptions
---@field after? any
---@field deferrable? boolean
---@field isolation? string
---@field max_replica_lag? any
---@field read_only? boolean
---@field retries? integer
---@field routing_key? any
---@field shard_id? string
---@field table? string
---@field timeout? number seconds

---@class lunashard.RouterExecuteManyOptions
---@field decode_json? boolean
---@field key? any
---@field max_parallel_shards? integer
---@field max_result_bytes? integer
---@field routing_key? any
---@field routing_keys? table
---@field shard_id? string
---@field table? string
---@field timeout? number seconds
---@field transaction? boolean

---@class lunashard.RouterCopyInOptions
---@field format? string
---@field header? boolean
---@field key? any
---@field routing_key? any
---@field shard_id? string
---@field table? string
---@field timeout? number seconds

---@class lunashard.RouterCopyOutOptions
---@field after? any
---@field columns? table
---@field format? string
---@field header? boolean
---@field in_order? boolean
---@field max_parallel_shards? integer
---@field max_replica_lag? any
---@field overwrite? boolean
---@field read_only? boolean
---@field routing_key? any
---@field shard_id? string
---@field table? string
---@field timeout? number seconds

---@class lunashard.RouterStreamOptions
---@field after? any
---@field all_shards? boolean
---@field decode_json? boolean
---@field fetch_size? integer
---@field limit? integer
---@field max_replica_lag? any
---@field offset? integer
---@field order_by? any
---@field read_only? boolean
---@field routing_key? any
---@field shard_id? string
---@field shard_ids? table
---@field table? string
---@field timeout? number seconds

---@class lunashard.RouterExplainOptions
---@field after? any
---@field all_shards? boolean
---@field decode_json? boolean
---@field hedge? any
---@field max_replica_lag? any
---@field max_result_bytes? integer
---@field pipeline? boolean
---@field read_only? boolean
---@field retries? integer
---@field routing_key? any
---@field shard_id? string
---@field shard_ids? table
---@field table? string
---@field timeout? number seconds

---@class lunashard.Router
---@field manager lunashard.Manager
---@field query_timeout number seconds
local Router = {}

--- Run one statement on the shard that owns a key. Yields.
--- Without `routing_key` and `shard_id` the statement says whose it is (see `lunashard.extractor`): it goes to the shard of
--- its key, or, with several keys or rows, to those shards, each with its part and in a transaction of its own; a
--- read without a key goes to all shards and their answers are merged, a write without one is refused. What contradicts a
--- key that the statement names is refused where tables are declared or an extractor was chosen.
--- Autocommit. Raises for unknown options and wrong types. Tried again (up to `retries`, inside the
--- one timeout) only when it is certain that it had no effect before.
---@param sql string # with `$1`, `$2`, ...
---@param params? table # values; NULL is `lunashard.null`
---@param opts? lunashard.RouterExecuteOptions # `routing_key` or `shard_id`: where to; `table`: whose key it is; `read_only`: prefer a replica, and promise that it changes nothing; `max_replica_lag`: how far behind the replica may be, seconds or `{ bytes = n }` [the manager's]; `after`: the result of a write, or its `lsn`, that the read must see; `timeout` seconds [query_timeout]; `retries`; `decode_json`; `hedge`: ask another endpoint too when a read takes longer than this percentile of late [the router's], false for never; `max_result_bytes`; `pipeline = false`: on a connection of its own; `all_shards = true`: the same as `scatter_gather` with it. With a reference table in `table`, reads go to any healthy shard and writes to all (each on its own: not atomic).
---@return lunashard.Result|nil # `rows`, `columns`, `column_types`, `row_count`, `command`, `shard_id`, `endpoint`, `duration` (seconds), `attempts`, `success`; where the shard has replicas and `read_only` was not said, `lsn`: the position of the write in the log (or a later one), asked of the primary when it is first looked at, which yields, and raises when the primary does not say. Results of one statement share the lists `columns` and `column_types`: copy them to change them. From several shards: as from `scatter_gather`, and of what was split by its keys `split`, shard_id -> how many keys or rows were its
---@return lunashard.Error|nil # `NO_KEY`, `NULL_KEY`, `NO_SHARD`, `KEY_MISMATCH`, `INVALID`, `SQL`, `TIMEOUT`, `SHARD_DOWN`, `AUTH`, `UNKNOWN_OUTCOME`, `POOL_EXHAUSTED`, `RESULT_TOO_LARGE`, `CLOSED`; from several shards `SHARDS_FAILED`, `NOT_MERGEABLE`
function Router:execute(sql, params, opts) end

--- The statements that took most time in the last five minutes, without the values in them. A few of all are looked at
--- (about a hundred in a second), and those that took `slow_statement` or longer: numbers are estimates when there are
--- more. Statements of streams, of `execute_many` and of `copy_in` are not among them.
---@param n? integer # how many at the most [10]
---@return table[] # `statement` (the same for those that differ in values alone), `count`, `seconds` (in all), `average_ms`, `longest_ms`, `share` (of the time of all)
function Router:get_top_statements(n) end

--- The buckets that got most statements in the last five minutes, estimated as `get_top_statements` does.
--- Only of strategies with numbered buckets: `hash`, `consistent_hash`, `rendezvous`.
---@param n? integer # how many at the most [10]
---@return table[] # `bucket`, `shard_id`, `count`, `seconds`, `share` (of the time of all); `table` where strategies differ by table
function Router:get_top_buckets(n) end

--- The latest statements that took `slow_statement` or longer, without values; 50 at the most.
---@return table[] # the latest last: `at` (seconds since 1970), `statement`, `shard_id`, `endpoint`, `bucket`, `duration` (seconds), `error` (its code, when it failed)
function Router:get_slow_statements() end

--- What the router has done so far.
---@return table # see `lunashard.router.statistics`
function Router:get_statistics() end

--- Run a statement on all shards and combine their rows. Yields.
--- Any failed shard fails the call and cancels the others, unless `on_failure = "partial"` or `min_shards` say
--- otherwise. Writes are refused unless `all_shards = true`; they are not atomic over the shards.
---@param sql string
---@param params? table
---@param opts? lunashard.RouterScatterGatherOptions # `aggregation_func`: a function of the list of shard results (each `success`, `shard_id`, `rows`, `error`, ...) that returns a row or a list of rows, or one of `lunashard.aggregate`; without it answers are put together as the statement says (aggregates, GROUP BY, HAVING, DISTINCT, ORDER BY, LIMIT), as one database with all rows would, or it is refused with `NOT_MERGEABLE`; `lunashard.aggregate.concat()` gives the rows of each shard as they come. A statement that names no table is asked of every shard, one over reference tables of one. `on_failure` [`"fail"`], `min_shards`, `max_parallel_shards`, `shard_ids`, `read_only`, `after`, `max_replica_lag`, `hedge`, `timeout`, `retries`, `decode_json`, `max_result_bytes`, `pipeline`
---@return lunashard.Result|nil # `rows`, `row_count`, `shard_results` (by shard_id; their rows are empty when an aggregation of `lunashard.aggregate` took them as they came), `complete`, `failed` (list of `{ shard_id, error }`), `duration`, `success`
---@return lunashard.Error|nil # `SHARDS_FAILED` (with `failed`), `PLUGIN_FAILED` (the function raised), `INVALID`, `NOT_MERGEABLE`, `NO_SHARD`, `CLOSED`
function Router:scatter_gather(sql, params, opts) end

--- Run SQL on every shard, each on a connection of its own. Yields.
--- Several statements in one string are allowed. It is not atomic over the shards: the answer always
--- says what was done where. A query that meets rows that are being moved is asked again, of all.
---@param sql string
---@param opts? lunashard.RouterExecuteOnAllShardsOptions # `parallel` [true]: false or a number of shards at a time; `canary`: a shard_id that goes first, and when it fails the others are left alone; `stop_on_error` [false]: start no more shards after a failure; `on_failure = "partial"`: return the result also when shards failed; `shard_ids`; `timeout` seconds for all
---@return lunashard.BroadcastResult|nil # `success`, `complete`, `shard_results` (shard_id -> result, or `{ success = false, error, started }`), `failed` (list of `{ shard_id, error }`), `done`, `skipped` (lists of names), `error_message`, `duration`
---@return lunashard.Error|nil # `SHARDS_FAILED` with `failed`, `shard_results`, `done`, `skipped`; `NO_SHARD`, `CLOSED`
function Router:execute_on_all_shards(sql, opts) end

--- Run a function in a transaction on the shard that owns a key. Yields.
--- An error raised in the function, a cancel, or a return of nil and a reason rolls back. Values are returned
--- after COMMIT.
---@param opts lunashard.RouterTransactionOptions # `routing_key` or `shard_id`, `table`; `isolation`: `read committed`, `repeatable read` or `serializable`; `read_only`, with `after` and `max_replica_lag` as for `execute`; `deferrable`; `timeout` for the whole transaction [none; each statement has query_timeout]; `retries` [0]: run the function again after a serialization failure or deadlock, or when another endpoint has become the primary
---@param fn function # called with the transaction: `tx:execute`, `tx:stream`, `tx:transaction` (savepoint)
---@return any|nil # what fn returned; true when that was nothing
---@return lunashard.Error|nil # with `cause`; `PLUGIN_FAILED` (with `traceback`) when fn raised something that is no error object, `UNKNOWN_OUTCOME` when COMMIT was not confirmed, otherwise what failed
function Router:transaction(opts, fn) end

--- Begin a transaction to be ended by hand. Yields.
--- One that is forgotten is rolled back when its task ends.
---@param opts lunashard.RouterTransactionOptions # as for `transaction`, without `retries`
---@return lunashard.Transaction|nil # with `commit` and `rollback` besides
---@return lunashard.Error|nil
function Router:begin(opts) end

--- Run a statement once for each set of parameters, on the shards that own their keys. Yields.
--- The shards work at the same time, each through its items in order and in one transaction, so that on a shard
--- either all of its items took effect or none. It is not atomic over the shards. Many items travel together, so that
--- the `duration` of a result is that of its company.
---@param sql string
---@param list table[] # sets of parameters
---@param opts? lunashard.RouterExecuteManyOptions # `key`: the number of the parameter that is the routing key (a list of numbers for several columns); or `routing_keys`: a list with the key of each item; or `routing_key` or `shard_id` for all: one of these ways alone, or none, and the statement says it with the parameters of each item (see `lunashard.extractor`). `table`; `transaction = false`: every item on its own, several at a time (those of one key in order), and a failed one does not stop the others; `max_parallel_shards`, `timeout` for all, `decode_json`, `max_result_bytes`
---@return table|nil # `results` (in the order of `list`), `row_count` (sum), `success`, `complete`, `failed` (empty), `duration`
---@return lunashard.Error|nil # nothing was sent: `NO_KEY`, `NULL_KEY`, `KEY_MISMATCH`, `INVALID`, `NO_SHARD` (with `index`), `CLOSED`; or `SHARDS_FAILED` with `failed` (`shard_id`, `error`, `index`), `committed` (names), `results` and `item_errors` (by index)
function Router:execute_many(sql, list, opts) end

--- Load rows by COPY, each on the shard that owns its key. Yields.
--- Either all rows are committed on all shards, or none, unless a COMMIT itself fails: then the error's
--- `committed` says which shards have how many.
---@param table_name string # may carry a schema: `app.users`
---@param columns string[]
---@param rows any # a list, or an iterator that gives a row and in the end nil; a row is a list of values in the columns' order (nil is NULL) or a table by column name. An iterator that gives nil and an error has failed, as one that raises. With `format`: bytes as `psql`'s `\copy` would read them, which is faster: a string, an open file (a pipe blocks all tasks while it is empty), a list of strings, or an iterator that gives strings and in the end nil; they may be cut anywhere
---@param opts? lunashard.RouterCopyInOptions # `key`: the shard key's column or columns [the table's, then the strategy's]; `shard_id` or `routing_key`: all rows to one shard; `table`: whose declaration counts, when the name differs; `format`: `text` (tabs, and `\N` for NULL) or `csv` (commas, double quotes, and nothing for NULL); `header`: the first row names the columns, and is checked; `timeout` for everything [none]. Rows of a reference table go to every shard
---@return table|nil # `row_count`, `rows_by_shard` (shard_id -> rows), `duration`, `success`
---@return lunashard.Error|nil # `SHARDS_FAILED` (with `failed`, whose errors have the row's number in `index` where the server names one, and `committed`), `NULL_KEY`, `INVALID`, `NO_SHARD` (with `index`, the row's number, the header not counted), `PLUGIN_FAILED` (the iterator failed, or what it gave is no row), `CLOSED`
function Router:copy_in(table_name, columns, rows, opts) end

--- Unload a table or a query from all shards, by COPY. Yields.
--- Memory stays flat. Each shard is read in a snapshot of its own. A file gets its name when all rows are in it; on
--- failure nothing is left of it.
---@param source string # a table, which may carry a schema (`app.users`), or a query (SELECT, VALUES, TABLE, WITH) that only reads; COPY takes no parameters
---@param sink function|file*|string # a function of bytes (whole rows, some 64 KiB of them) and shard_id, which has failed when it raises or returns `nil, err` or false, and may wait; an open file, which stays open; or the name of a new file
---@param opts? lunashard.RouterCopyOutOptions # `format`: `text` [default] or `csv`; `header`: the columns' names first, once; `columns` of a table [all]; `shard_id` or `routing_key` (and `table`, whose key it is): one shard alone; `in_order`: one shard after the other, as configured [all at once, their rows mingled]; `max_parallel_shards`; `overwrite`: the file may exist; `read_only`: prefer replicas, with `after` and `max_replica_lag` as for `execute`; `timeout` for everything [none]. A reference table is read from one shard
---@return table|nil # `row_count`, `rows_by_shard` (shard_id -> rows), `bytes`, `duration`, `success`
---@return lunashard.Error|nil # `SHARDS_FAILED` (with `failed`), `PLUGIN_FAILED` (the function failed), `INVALID` (the file exists or cannot be written), `NO_SHARD`, `NULL_KEY`, `CLOSED`; with `written` when bytes were handed over that cannot be taken back
function Router:copy_out(source, sink, opts) end

--- Read rows one by one, from one shard or from all. Yields while iterating.
--- Nothing is sent before the first row is asked for. The iterator raises error objects, for a `for` loop cannot
--- return them: `NO_SHARD`, `SQL`, `TIMEOUT`, `SHARD_DOWN`, `INVALID`, `CLOSED`, `NOT_MERGEABLE` (order_by that
--- contradicts the statement's ORDER BY, or that the server alone can decide). After an early `break`, call `close`:
--- what still runs is cancelled on the servers, and the connections are free as soon as they have answered.
---@param sql string
---@param params? table
---@param opts? lunashard.RouterStreamOptions # `routing_key` or `shard_id` (with `table`): one shard; without them those of the keys that the statement names (see `lunashard.extractor`), otherwise all shards, or those in `shard_ids`, one after the other, or merged by `order_by = "created_at desc, id"`, which must be the statement's own ORDER BY; `limit` and `offset` of the rows as they come out (each shard is asked for `limit + offset` at the most); `fetch_size` [500] rows at a time, `timeout` for the whole stream [none], `read_only`, `after`, `max_replica_lag`, `decode_json`, `all_shards`
---@return lunashard.Stream # for `for row, shard_id in router:stream(...) do`, with `close`
function Router:stream(sql, params, opts) end

--- Say where `execute` or `scatter_gather` would send a statement, or where a key lives.
---@param sql? string # may be nil when there is a `routing_key`
---@param params? table
---@param opts? lunashard.RouterExplainOptions # as for `execute`
---@return lunashard.Plan|nil # `kind` (`read`, `write`, `key`), `shards` (list of names), `shard_id` when it is one, `any`, `bucket`, `strategy`, `source` and `found` (who found the key, and what), `split`, `statements`, `steps`, `endpoints`, `endpoint_kinds`, `reason`: see `lunashard.router.explained`; `tostring` gives lines of text, `:to_table()` one for JSON
---@return lunashard.Error|nil # as `execute` would return: `INVALID`, `NULL_KEY`, `NO_SHARD`, `KEY_MISMATCH`, `NO_KEY`, `NOT_MERGEABLE`, `SQL` for what does not parse
function Router:explain(sql, params, opts) end

---@class lunashard.TransactionExecuteOptions
---@field decode_json? boolean
---@field max_result_bytes? integer
---@field routing_key? any
---@field table? string
---@field timeout? number seconds

---@class lunashard.TransactionStreamOptions
---@field routing_key? any
---@field shard_id? string
---@field table? string

---@class lunashard.Transaction
---@field shard_id string
local Transaction = {}

--- Run one statement in the transaction. Yields.
---@param sql string
---@param params? table
---@param opts? lunashard.TransactionExecuteOptions # `routing_key` (and `table`): checked against the transaction's shard, as are keys that the statement names where tables are declared or an extractor was chosen; `timeout`, `decode_json`, `max_result_bytes`
---@return lunashard.Result|nil # result, as from `router:execute`; its `lsn` can be looked at once the transaction has ended
---@return lunashard.Error|nil # `SQL`, `TIMEOUT`, `KEY_MISMATCH`, `INVALID`, `SHARD_DOWN` (rolled back), `CLOSED`; after `SQL` only a rollback, to a savepoint or of everything, lets other statements run
function Transaction:execute(sql, params, opts) end

--- Read a large result in the transaction, row by row.
--- The transaction can run nothing else until the iterator is at its end or closed; an early `close` leaves it usable.
---@param sql string
---@param params? table
---@param opts? lunashard.TransactionStreamOptions # `fetch_size`, `timeout`, `decode_json`
---@return lunashard.Stream # for `for row in tx:stream(...) do`; errors are raised while iterating
function Transaction:stream(sql, params, opts) end

--- Run a function inside a savepoint. Yields.
--- When it raises, or returns nil and a reason, the transaction goes back to the savepoint and is usable again.
---@param fn function # called with the transaction
---@return any|nil # what fn returned; true when that was nothing
---@return lunashard.Error|nil # with `cause`
function Transaction:transaction(fn) end

--- Commit a transaction from `router:begin`. Yields.
---@return boolean|nil # true
---@return lunashard.Error|nil # `SQL`, `UNKNOWN_OUTCOME`, `TIMEOUT`, `CLOSED`; `INVALID` in `router:transaction`, where the function's return commits
function Transaction:commit() end

--- Roll back a transaction from `router:begin`. Yields.
---@return boolean|nil # true
---@return lunashard.Error|nil # `CLOSED`; `INVALID` in `router:transaction`, where raising rolls back
function Transaction:rollback() end

---@class lunashard.Stream
---@overload fun(): table|nil, string|nil
local Stream = {}

--- End the stream and give its connections back. May be called again; not needed after the last row.
function Stream:close() end

---@class lunashard.Cluster
---@field name? string
---@field path string
---@field manager lunashard.Manager
---@field router lunashard.Router
local Cluster = {}

--- Close the cluster's manager and so every connection. May be called again.
---@return boolean # true
function Cluster:close() end

--- Read the cluster file again and work with what it says now, without disturbing what runs. Yields.
--- A file that is wrong changes nothing.
---@param opts? lunashard.ManagerAddShardOptions # as for `manager:reload`
---@return table[]|nil # what changed, see `manager:reload`
---@return lunashard.Error|nil # what is wrong with the file, or what `manager:reload` refuses
function Cluster:reload(opts) end

--- A strategy, bound to shards.
---@class lunashard.Strategy
---@field name string
---@field shard_key string|string[]
---@field key_type string|string[]|nil
---@field shards lunashard.Shard[]
local Strategy = {}

--- The bucket of a key: an integer or short text that never changes for the key.
--- Yields when a directory has to be asked.
---@param key any
---@return number|string|nil
---@return lunashard.Error|nil # `NULL_KEY`, `INVALID`, `NO_SHARD`, `PLUGIN_FAILED`
function Strategy:bucket(key) end

--- The shard of a bucket.
--- Yields when a directory has to be asked.
---@param bucket number|string
---@return string|nil # shard_id
---@return lunashard.Error|nil # `INVALID`, `NO_SHARD`, `PLUGIN_FAILED`
function Strategy:place(bucket) end

--- Where a key lives.
--- Yields when a directory has to be asked.
---@param key any # a number, int64, string; for several columns a table of these, by position or name
---@return string|nil # shard_id
---@return lunashard.Error|number|string # bucket
function Strategy:route(key) end

--- Where many keys live.
--- Yields when a directory has to be asked.
---@param keys table # a list; a NULL in it is `lunashard.null`
---@return string[]|nil # the shard_id of each key
---@return lunashard.Error|nil # of the first key without an answer, its position in `index`
function Strategy:route_many(keys) end

--- How many of the given keys live on each shard.
--- Yields when a directory has to be asked.
---@param keys table # a list
---@return table|nil # shard_id -> count, with every shard, zeros included
---@return lunashard.Error|nil # of the first key without an answer, its position in `index`
function Strategy:get_distribution(keys) end

--- The shards that may hold keys from `low` to `high`: fewer than all only for `range`.
---@param low any # inclusive; nil is open
---@param high any # inclusive; nil is open
---@return string[]|nil # shard_ids in configured order
---@return lunashard.Error|nil # `INVALID`
function Strategy:shards_for_range(low, high) end

--- What would move if the shards, or the strategy, were others.
--- Exact over all buckets when both have the same ones (`consistent_hash`, `rendezvous`); else over
--- the given keys, or for hashing strategies over a sample.
---@param other any # a list of shards for the same strategy, or a bound strategy
---@param keys? table # a list of keys to compare by
---@return table|nil # `moved`, `total`, `fraction`, `by` ("shard1->shard4" -> count), `unit` (`buckets`, `keys`)
---@return lunashard.Error|nil # of a key without an answer
function Strategy:movement(other, keys) end

--- Forget what a directory's cache says.
---@param key? any # all keys when absent
function Strategy:invalidate(key) end

--- Both a function of the shards' results and a reducer.
---@class lunashard.Aggregate
---@field name string
---@overload fun(results: table[]): table|nil, lunashard.Error|nil
local Aggregate = {}

--- A new accumulator.
---@return table
function Aggregate:init() end

--- Take one row in.
---@param acc table
---@param row table
---@param shard_id? string
---@param types? table # column name -> SQL type, from `lunashard.order.types`; the same table for all rows of a shard
---@return table|nil # acc
---@return lunashard.Error|nil # `NOT_MERGEABLE` or `INVALID`
function Aggregate:step(acc, row, shard_id, types) end

--- Combine two accumulators; neither is used afterwards, but for what is returned.
---@param a table
---@param b table
---@return table|nil # acc
---@return lunashard.Error|nil
function Aggregate:merge(a, b) end

--- The result.
---@param acc table
---@return table|nil # a row, or a list of rows; `rows` tells which
---@return lunashard.Error|nil
function Aggregate:finish(acc) end

--- Column types of what `finish` gives, as far as they are known.
---@param acc table
---@return table|nil # column name -> SQL type
function Aggregate:types(acc) end

--- Feed all rows of the shards that succeeded.
---@param results table[]
---@return table|nil # acc
---@return lunashard.Error|nil
function Aggregate:collect(results) end

--- A rebalance job, live while it runs here.
---@class lunashard.RebalanceJob
---@field job_id integer
---@field status "pending"|"running"|"paused"|"completed"|"failed"|"cancelled"|"rolled_back"
---@field group string
---@field planner string
---@field strategy string
---@field progress_percent number
---@field total_migrated number rows that have changed hands
---@field total_rows number
---@field rows_copied number
---@field duration_seconds number
---@field error_message? string
---@field moves table<string, integer> how many in each state
---@field moves_done integer
---@field moves_total integer
---@field rate? number rows a second
---@field eta? number seconds
---@field waves? table current, total, share, state, soak, soaked, reading, verdict: of a gradual job
---@field last_pause? number seconds
---@field longest_pause? number seconds
---@field interrupted? boolean nobody runs it
---@field backlog? integer changes that are yet to be carried over
---@field fences? table[] moves whose buckets nobody can write to now
---@field plan? lunashard.RebalancePlan

--- What a job would move.
---@class lunashard.RebalancePlan
---@field group string
---@field planner string
---@field moves table[] each with seq, source, destination, buckets, rows, bytes
---@field buckets integer
---@field rows number
---@field bytes number
---@field total_rows number
---@field share number of the rows, 0 to 1
---@field estimated_seconds number
---@field shards table[] each with shard_id, buckets, rows, bytes, and the same with _after
---@field by table<string, number> rows by way, such as shard1->shard4
---@field warnings string[]
---@field giants table[] buckets that are too large to be moved
---@field waves? table[] each with wave, share (percent), moves, buckets, rows

---@class lunashard.RebalancerPlanOptions
---@field buckets? table
---@field by? string
---@field gate? table
---@field group? string
---@field harmless? table
---@field key? any
---@field moves? table
---@field planner? any
---@field reverse? boolean
---@field shard? string
---@field shard_key? any
---@field soak? any
---@field strategy? string
---@field table_name? string
---@field tolerance? any
---@field waves? table

---@class lunashard.Rebalancer
local Rebalancer = {}

--- What a job would move. Changes nothing. Yields.
---@param given lunashard.RebalancerPlanOptions # - `table_name` or `group`: whose rows; not needed where there is one group. `shard_key` may be given, and is compared - `planner`: a policy that plans: its name, `{ name, option = ... }`, or `lunashard.policy.<name> { option = ... }`. `follow` [default]: to where the strategy puts them over the present shards; `minimal`; `even` (`by`: `rows` [default], `bytes`, `buckets`; `tolerance`: of a share [0.02]; `cost`, `capacity`, `allowed`: functions); `by_load`; `by_region`; `drain` (`shard`); `pin` (`key` or `buckets`, `shard`); `list` (`moves`: a list of `{ buckets = {...}, to = shard_id }`); or one of the plug-in folder. `by`, `tolerance`, `shard`, `key`, `buckets` and `moves` may be given beside it - `strategy`, `waves`, `soak`, `harmless`: see `create_rebalance_job`
---@return lunashard.RebalancePlan|nil # `group`, `planner`, `moves` (a list: `seq`, `source`, `destination`, `buckets`, `rows`, `bytes`), `buckets`, `rows`, `bytes`, `total_rows`, `share` (of the rows, 0 to 1), `estimated_seconds`, `shards` (before and after), `by`, `warnings`, `giants` (buckets that are too large to be moved), `waves` (a list: `share` in percent, `moves`, `buckets`, `rows`) of a gradual job
---@return lunashard.Error|nil # `INVALID`, `SHARDS_FAILED`, ...
function Rebalancer:plan(given) end

--- Write a job down. Nothing moves before `execute_job`. Yields.
--- Everything that would stop it is looked for first: unreachable shards, missing tables, keys and rights, other definitions.
--- A shard that is new gets our schema, and is noted in the catalog.
---@param given lunashard.RebalancerPlanOptions # as for `plan`, and - `strategy`: `live_migration` [default]; `offline` (buckets are closed to writers first, and copied then); `gradual`: in waves, with a while after each in which the shards have to stay well, or the job pauses - of a gradual job: `waves`: percentages of what moves after each [{ 1, 5, 25, 100 }]; `soak`: seconds after each [60]; `gate`: limits of what the worst shard may come to meanwhile, `error_rate` [0.01], `p99_ms` [1000], `lag_seconds` [30], of this process' statements and small looks at every shard; false for none; `reverse`: a wave after which a gate closes is moved back - `harmless`: names of triggers and rules on the tables that may see rows which move
---@return lunashard.RebalanceJob|nil # the job, with the fields of `get_job_status`, live while it runs here; `plan`
---@return lunashard.Error|nil # `JOB_OPEN`, `INVALID` (`problems`: all that is wrong, each with `shard_id`, `table`, `message`)
function Rebalancer:create_rebalance_job(given) end

--- Run a job to its end, or go on with one that was paused, failed, or left by whoever ran it. Yields.
---@param id integer
---@return boolean|nil # true: all has moved
---@return lunashard.Error|nil # `LOCK_HELD` naming who runs it, `INVALID`, `CANCELED` when it was asked to pause or to end, or what failed; the job's `error_message` says it too
function Rebalancer:execute_job(id) end

--- The same as `execute_job`, in the guide's word for a paused one. Yields.
---@param id integer
---@return boolean|nil # true
---@return lunashard.Error|nil
function Rebalancer:resume_job(id) end

--- Stop a job at the next point from which it can go on. Yields until it has.
---@param id integer
---@return boolean|nil # true
---@return lunashard.Error|nil # `INVALID` when it has ended
function Rebalancer:pause_job(id) end

--- End a job. Moves that are half-way are undone, or completed where they cannot be; what has moved stays where it is.
--- Yields.
---@param id integer
---@return boolean|nil # true
---@return lunashard.Error|nil # `INVALID` when it has ended
function Rebalancer:cancel_job(id) end

--- Bring back the map of before a job, by moving back what it has moved. Yields.
---@param id integer
---@return boolean|nil # true
---@return lunashard.Error|nil # `INVALID` when a bucket has been moved again since, or nothing is to be brought back
function Rebalancer:rollback_job(id) end

--- How a job does. Yields: it asks the catalog.
---@param id? integer # the latest by default
---@return lunashard.RebalanceJob|nil # the guide's `status` (`pending running paused completed failed cancelled rolled_back`), `progress_percent`, `total_migrated`, `total_rows`, `duration_seconds`, `error_message`; and `job_id`, `group`, `planner`, `strategy`, `moves` (how many in each state), `moves_done`, `moves_total`, `rate` (rows a second), `eta` (seconds), `last_pause`, `longest_pause` (seconds), `interrupted` (nobody runs it), `waves` of a gradual job (`current`, `total`, `share`, `state`: `moving soaking reversing passed`, `soak`, `soaked`, `reading`, `verdict`), `backlog` (changes that are yet to be applied), `fences` (a list: moves whose buckets nobody can write now, with `seconds`)
---@return lunashard.Error|nil
function Rebalancer:get_job_status(id) end

--- Remove what ended jobs have left on the shards: staging tables, triggers, notes; and switch guards off when no job is
--- open. Yields.
---@return string[]|nil # what was removed
---@return lunashard.Error|nil # `LOCK_HELD` while somebody moves, `SHARDS_FAILED`
function Rebalancer:cleanup() end

--- The latest jobs. Yields.
---@param limit? integer
---@return table[]|nil # as the catalog has them
---@return lunashard.Error|nil
function Rebalancer:list_jobs(limit) end

---@class lunashard.Task
local Task = {}

--- Wait for a task's end. Yields.
---@param timeout? number # seconds
---@return boolean|nil # true
---@return any|lunashard.Error # what its function returned
function Task:join(timeout) end

--- Ask the task to end.
function Task:cancel() end

--- What the task is doing.
---@return string # `starting`, `running`, `waiting`, `ended`, `failed` or `canceled`
function Task:status() end

--- Promise to look at the outcome later: a failure is then not printed when it happens.
---@return lunashard.Task # itself
function Task:watch() end

---@class lunashard.TaskEvent
local TaskEvent = {}

--- Wait for the next `notify`. Yields.
---@param deadline? number # on the clock of `now`
---@return boolean # false when the deadline came first
function TaskEvent:wait(deadline) end

--- Wake waiting tasks, in the order in which they came.
---@param n? integer # how many at the most; all by default
function TaskEvent:notify(n) end

---@class lunashard.Cache
local Cache = {}

--- Run a statement, or give what it gave before. Yields.
--- As `router:execute`, and returns what that returns; rows are the caller's own,
--- though decoded JSON and arrays in them are shared and must not be changed.
---@param sql string
---@param params? table
---@param opts? lunashard.TransactionStreamOptions # those of `execute`; and `ttl` seconds for this result, 0 to run it without the cache
---@return lunashard.Result|nil # result, with `cached = true` when this call did not run it
---@return lunashard.Error|nil
function Cache:execute(sql, params, opts) end

--- Forget all results of a routing key, in whatever form it was given: 42, 42LL and "42" are one.
---@param routing_key any
function Cache:invalidate(routing_key) end

--- Forget all results of a statement, whatever its parameters.
---@param sql string # the same text as was executed
function Cache:invalidate_statement(sql) end

--- Forget everything.
function Cache:invalidate_all() end

--- What the cache has done so far.
---@return table # `hits`, `misses`, `coalesced` (calls that waited for another's run), `evictions`, `invalidations`, `size` (entries), `bytes` (about), `hit_rate` (0 to 1; 0 before the first call)
function Cache:get_statistics() end

---@class lunashard.Counter
local Counter = {}

--- Count up. Raises for a wrong number or wrong labels.
---@param n? number # not below 0 [1]
---@param labels? table # name -> value; all that the metric has
---@return boolean # false when there are too many series
function Counter:add(n, labels) end

---@class lunashard.Gauge
local Gauge = {}

--- Set to a value. Raises as `Counter:add` does.
---@param value number
---@param labels? table
---@return boolean # false when there are too many series
function Gauge:set(value, labels) end

--- Change by so much. Raises as `Counter:add` does.
---@param n number
---@param labels? table
---@return boolean # false when there are too many series
function Gauge:add(n, labels) end

---@class lunashard.Histogram
local Histogram = {}

--- Count one value. Raises as `Counter:add` does.
---@param value number
---@param labels? table
---@return boolean # false when there are too many series
function Histogram:observe(value, labels) end

---@class lunashard.IdGenerator
local IdGenerator = {}

--- The next id.
---@param now? number # Unix time in seconds; the system's by default
---@return number|integer|nil # greater than all before it; a number up to 2^53
---@return lunashard.Error|nil # `INVALID` when the time lies outside the epoch's 34.8 years
function IdGenerator:next(now) end

--- Take an id apart. The generator must have the options of the one that made it.
---@param id number|integer
---@return table # `time` (Unix seconds), `shard`, `worker`, `sequence`
function IdGenerator:decode(id) end

---@class lunashard.aggregate
---@field avg fun(...: any): lunashard.Aggregate
---@field chain fun(...: any): lunashard.Aggregate
---@field concat fun(...: any): lunashard.Aggregate
---@field count fun(...: any): lunashard.Aggregate
---@field distinct fun(...: any): lunashard.Aggregate
---@field group_by fun(...: any): lunashard.Aggregate
---@field having fun(...: any): lunashard.Aggregate
---@field limit fun(...: any): lunashard.Aggregate
---@field max fun(...: any): lunashard.Aggregate
---@field merge_sort fun(...: any): lunashard.Aggregate
---@field min fun(...: any): lunashard.Aggregate
---@field percentile fun(...: any): lunashard.Aggregate
---@field sum fun(...: any): lunashard.Aggregate
---@field top_n fun(...: any): lunashard.Aggregate
local aggregate = {}

--- Make a plug-in available as `lunashard.aggregate.<name>`, replacing an earlier one.
---@param plugin table # `{ api = 1, kind = "aggregate", name =, new(...) -> options, init(options) -> acc, step(acc, row, shard_id, types) -> acc, merge(acc, acc) -> acc, finish(acc) -> row or rows }`, or `aggregate(options, results) -> row or rows`
---@return boolean|nil # true
---@return lunashard.Error|nil # `INVALID` with what the contract misses
function aggregate.register(plugin) end

--- The rows of what an aggregate, or any aggregation function, returned.
--- An empty table alone does not say whether it is a row of NULLs or no row at all: an
--- aggregate knows, a plain function means no row.
---@param agg any # the aggregate or function
---@param value table # what it returned
---@return table[]
function aggregate.rows(agg, value) end

--- Is it an aggregate of ours, and so also a reducer?
---@param value any # anything
---@return boolean
function aggregate.is(value) end

--- An aggregate as its plug-in's present version makes it; what is no aggregate as it is.
--- A scatter asks once, when it begins, and ends with that version. When the present version does not take the
--- arguments that the aggregate was made with, it stays what it is.
---@param agg any # anything
---@return any # the same, or a new aggregate
function aggregate.present(agg) end

--- Names of all aggregates, sorted.
---@return string[]
function aggregate.names() end

---@class lunashard.errors
---@field codes table<lunashard.ErrorCode, table>
local errors = {}

--- Build an error.
--- Raises on an unknown code or a missing message: both are bugs of the caller.
---@param code string # a key of `codes`
---@param fields? table # `message` and any of the fields named at the top
---@return lunashard.Error
function errors.new(code, fields) end

--- Is this value an error of ours, and, when `code` is given, of that kind?
---@param value any # anything
---@param code? string
---@return boolean
function errors.is(value, code) end

--- Add context to an error.
--- Gives a copy, for an error may be shared by several waiters. What the error knows
--- already wins over `fields`. With a `code` of another kind in `fields` the result is a
--- new error of that kind, and the given one becomes its `cause`. A value that is no error
--- of ours (a raised string) becomes the cause of a new one, by default `PLUGIN_FAILED`.
---@param err any # an error, or anything that was raised
---@param fields table
---@return lunashard.Error
function errors.wrap(err, fields) end

--- A plain tree of an error for JSON: without cycles, metatables or passwords.
--- The server's `detail` quotes values of rows ("Key (email)=(...) already exists"), so it
--- is left out unless asked for.
---@param err any # an error, or anything that was raised
---@param options? table # `detail = true` to include it
---@return table
function errors.to_table(err, options) end

--- Exit status for a command that ends with this error.
--- `SHARDS_FAILED` means "partial" only when some shard did succeed.
---@param err any # an error, or anything that was raised
---@return number
function errors.exit_code(err) end

--- The valid name closest to a mistyped one.
--- Up to one edit in three letters counts as close, a swap of neighbours as one edit.
---@param name string
---@param candidates table # a list of names, or a table keyed by name
---@return string|nil # nil when nothing is close
function errors.nearest(name, candidates) end

---@class lunashard.extractor
---@field by_column fun(...: any): table
---@field by_comment fun(...: any): table
---@field by_param fun(...: any): table
---@field first_of fun(...: any): table
local extractor = {}

--- Is it an extractor?
---@param value any
---@return boolean
function extractor.is(value) end

--- The extractor that a value of the cluster file stands for. Raises when it stands for none.
---@param given any # what `lunashard.extractor.<name>(...)` gives, a name, `{ name, argument, ... }`, a list of extractors to be tried in turn, nil for the default (`first_of { by_comment, by_column }`), or false for none
---@return table|nil # nil for false
function extractor.find(given) end

--- Names of all extractors, sorted.
---@return string[]
function extractor.names() end

--- Make a plug-in available as `lunashard.extractor.<name>`, replacing an earlier one. Raises when it breaks its contract.
---@param contract table
function extractor.register(contract) end

---@class lunashard.IdsNewOptions
---@field after? any
---@field epoch? number
---@field shard? integer
---@field width? integer
---@field worker? integer
---@field worker_bits? integer

---@class lunashard.ids
local ids = {}

--- Make a generator.
--- Raises when a part does not fit its bits.
---@param opts? lunashard.IdsNewOptions # `shard` (0), `worker` (0), `worker_bits` (0), `width` (64), `epoch` in Unix seconds (2024-01-01), `after`: an id below all that will be made
---@return lunashard.IdGenerator
function ids.new(opts) end

---@class lunashard.MetricsCounterOptions
---@field buckets? table
---@field help? string
---@field labels? table
---@field max_series? integer
---@field name? string

---@class lunashard.metrics
local metrics = {}

--- Define a counter, which only grows, or find it again. Raises for what is wrong.
---@param given lunashard.MetricsCounterOptions # `name`, which ends in `_total`; `help`; `labels`: list of names; `max_series` [100]
---@return lunashard.Counter # with `add(n, labels)`
function metrics.counter(given) end

--- Define a gauge, which goes up and down, or find it again. Raises for what is wrong.
---@param given lunashard.MetricsCounterOptions # as for `counter`; its `name` does not end in `_total`
---@return lunashard.Gauge # with `set(value, labels)` and `add(n, labels)`
function metrics.gauge(given) end

--- Define a histogram, or find it again. Raises for what is wrong.
---@param given lunashard.MetricsCounterOptions # as for `gauge`, and `buckets`: list of bounds, growing [0.001 to 10, for seconds]
---@return lunashard.Histogram # with `observe(value, labels)`
function metrics.histogram(given) end

--- Everything, as Prometheus reads it. Does not yield and asks no server.
---@param cluster? table # from `lunashard.open`, or any table with `manager` and `router`; without it only what the process and its scripts count
---@return string
function metrics.render(cluster) end

---@class lunashard.policy
---@field by_load fun(options?: table): table
---@field by_region fun(options?: table): table
---@field drain fun(options?: table): table
---@field even fun(options?: table): table
---@field follow fun(options?: table): table
---@field list fun(options?: table): table
---@field minimal fun(options?: table): table
---@field pace fun(options?: table): table
---@field pin fun(options?: table): table
---@field prefer fun(options?: table): table
local policy = {}

--- The policy that says what moves where, in its present version.
---@param given any # a name, `{ name, option = ... }` or what `lunashard.policy.<name>` gives
---@param more? table # options, in place of those
---@return table|nil # `name`, `options` (as they were given), `made` (what `new` made of them), `entry`
---@return lunashard.Error|nil # `INVALID`, `PLUGIN_FAILED`
function policy.planner(given, more) end

--- What a job writes down of a policy, for whoever resumes it.
---@param given any # as for `handler`
---@return table|nil # `{ name, option = ... }`; nil for a function
function policy.spelled(given) end

--- The function that a value of the cluster file stands for. A policy is called in its present version.
---@param given any # a function, a name, `{ name, option = ... }` or what `lunashard.policy.<name>` gives
---@param fn_name string # `choose_primary`, `on_health` or `throttle`
---@return function|nil|nil
---@return string|nil # what is wrong
function policy.handler(given, fn_name) end

--- Put functions in the place of the policies that options name.
---@param cfg table # from `config.manager`
---@return boolean|nil # true
---@return string|nil # what is wrong
function policy.adopt(cfg) end

--- Does a manager use the policy of this name?
---@param manager lunashard.Manager
---@param name string
---@return boolean
function policy.is_used(manager, name) end

--- Could this version serve where a manager uses the one of its name?
---@param manager lunashard.Manager
---@param entry table
---@return boolean|nil # true
---@return string|nil # what is wrong
function policy.try(manager, entry) end

---@class lunashard.strategy
---@field consistent_hash fun(options?: table): lunashard.Strategy
---@field directory fun(options?: table): lunashard.Strategy
---@field first_of fun(options?: table): lunashard.Strategy
---@field geographic fun(options?: table): lunashard.Strategy
---@field hash fun(options?: table): lunashard.Strategy
---@field pins fun(options?: table): lunashard.Strategy
---@field range fun(options?: table): lunashard.Strategy
---@field rendezvous fun(options?: table): lunashard.Strategy
---@field threshold fun(options?: table): lunashard.Strategy
local strategy = {}

--- Make a plug-in known by its name, replacing one of the same name. Raises when it breaks the
--- contract or takes a shipped strategy's name.
---@param contract table
function strategy.register(contract) end

--- Describe a strategy, or, when the options have `shards`, bind it at once.
--- Raises for an unknown name or option.
---@param name string
---@param options? table
---@return table # to be given to a manager or to `bind`
function strategy.new(name, options) end

--- Take whatever describes a strategy: what `new` made, a bound strategy, a name, or
--- `{ "hash", shard_key = ... }`. Raises when it does not.
---@param given any
---@return table # what `new` makes without `shards`
function strategy.spec(given) end

--- Bind a strategy to shards.
--- Raises, with one line that names what is wrong, for anything the strategy cannot place with.
---@param given any # anything that `spec` takes
---@param shards table[] # each with `shard_id`, and `weight` and `region` where they matter
---@param opts? table # `key_type` as the table declares it, `shard_key` when the strategy has none
---@return lunashard.Strategy
function strategy.bind(given, shards, opts) end

---@class lunashard.CacheOptions
---@field max_bytes? integer
---@field max_entries? integer
---@field now? function
---@field router? table
---@field ttl? number seconds

---@class lunashard.OpenOptions
---@field protect? boolean
---@field read_only? boolean

---@class lunashard.RebalancerOptions
---@field batch_size? integer
---@field enable_validation? boolean
---@field max_cutover? number seconds
---@field max_parallel_tasks? integer
---@field max_per_shard? integer
---@field purge_delay? any
---@field router? any
---@field shard_manager? any
---@field throttle? any
---@field throttle_ms? integer

---@class lunashard.ReloadOptions
---@field allow_placement_change? boolean
---@field path? string

---@class lunashard
---@field version string
---@field aggregate lunashard.aggregate
---@field errors lunashard.errors
---@field extractor lunashard.extractor
---@field ids lunashard.ids
---@field metrics lunashard.metrics
---@field null any SQL's NULL, where a Lua nil cannot stand
---@field policy lunashard.policy
---@field strategy lunashard.strategy
local lunashard = {}

--- Mark bytes as bytea: they travel in binary, NUL bytes included.
---@param bytes string
---@return table
function lunashard.bytea(bytes) end

--- Create a cached router. Raises for an option that is unknown or wrong.
---@param given lunashard.CacheOptions # `router`; `ttl` seconds [60]; `max_entries` [10000]; `max_bytes`, about, of all results together [no bound]; `now`, a clock in seconds
---@return lunashard.Cache
function lunashard.cache(given) end

--- An event that tasks can wait for.
---@return lunashard.TaskEvent # with `wait(deadline)` and `notify(n)`
function lunashard.event() end

--- Run functions at the same time and wait for all. Yields.
--- The first failure cancels the others.
---@param fns function[]
---@param options? table # `timeout` in seconds, for all together
---@return table|nil # the first result of each function, in order, and `n`
---@return lunashard.Error|nil # what the first to fail raised, or `TIMEOUT`
function lunashard.gather(fns, options) end

--- A Lua value as JSON text, for json and jsonb parameters.
---@param value any # anything that lua-cjson encodes
---@return string
function lunashard.json(value) end

--- Create a manager. Connects nowhere before `initialize`.
--- Raises for an option that is unknown, missing or wrong, naming it by path.
---@param options lunashard.ClusterOptions # see the cluster file: `shards`, `strategy`, `tables`, `connection_pool_size` [20], `connection_timeout` [5 s], `max_waiters` [10000], `query_timeout` [30 s], `retries` [2], `max_consecutive_failures` [3], `require_all` [false], ...; `enable_auto_failover` [true], `promote` [false] (see `lunashard.manager.failover.promotion`), `choose_primary(candidates, shard)` (false vetoes, an endpoint chooses), `on_health(event)`: functions or policies; `plugins` (a folder), `trusted_plugins` (names of files in it, without .lua), `on_plugin(event)`; `shards` may be left out when the strategy was given them
---@return lunashard.Manager # with `strategy`, `shards` (without passwords), `shard_health`
function lunashard.manager(options) end

--- Monotonic seconds, for durations and deadlines.
---@return number
function lunashard.now() end

--- Build manager and router from a cluster file and probe the shards. Yields.
--- Shards that are down are warned of and not fatal, unless the file says `require_all = true`.
---@param path string
---@param opts? lunashard.OpenOptions # `read_only = true`: the servers refuse to write, as if the file said so; `protect = true`: that for a cluster with `environment = "production"`
---@return lunashard.Cluster|nil # with `manager`, `router`, `path`, `name`, and `close`
---@return lunashard.Error|nil # `INVALID` for a file that is missing or wrong, or what `manager:initialize` returns
function lunashard.open(path, opts) end

--- Make one. Raises for unknown or wrong options.
---@param options lunashard.RebalancerOptions # - `shard_manager`: an initialized manager; `router` is taken for the guide's sake, and its manager when there is no other - `batch_size`: rows that are copied at a time [5000]; `throttle_ms`: pause after each batch [0] - `max_parallel_tasks`: moves at a time [4]; `max_per_shard`: of these from or to one shard [2] - `enable_validation`: compare count and checksum of both sides before anything changes hands [true] - `max_cutover`: seconds that the statements of a bucket wait at the most when it changes hands [2] - `purge_delay`: seconds that the source keeps what was moved, out of sight [0] - `throttle`: function(stats) -> seconds to pause after each batch from now on, or a policy, as `{ "pace", p95_ms = 20 }`; asked twice a second with `throttle` (the present pause), `lag_seconds` (of the replica that is farthest behind), `p95_ms` and `p99_ms` of late (of this process' statements and of small looks at every shard), `error_rate`, `time` (as `os.date("*t")`)
---@return lunashard.Rebalancer
function lunashard.rebalancer(options) end

--- Load what has changed in the plug-in folders of all managers, and try again what was refused. Yields.
---@param opts? lunashard.ReloadOptions # `path`: only this file, also when it is unchanged; `allow_placement_change = true`: there are no rows yet that a new placement could lose
---@return table|table[] # what happened, each with `action` (`loaded`, `reloaded`, `removed`, `kept`), `path`, `plugin_kind`, `name`, `generation`, `message`
---@return lunashard.Error|nil # `PLUGIN_FAILED`, `PLACEMENT_CHANGED`, `INVALID`, with `events`, all that happened
function lunashard.reload(opts) end

--- Create a router.
--- Raises for an option that is unknown or wrong.
---@param given lunashard.RouterOptions # `shard_manager`; `query_timeout`, `retries`, `retry_budget`, `max_parallel_shards` and `max_result_bytes` default to the manager's; so does `extractor`, which finds the key of a statement that is given without one (see `lunashard.extractor`; false for none). A manager alone will do, as in the guide.
---@return lunashard.Router
function lunashard.router(given) end

--- Ask these servers from now on, for everything in this program. Lookups under way fail with `SHARD_DOWN`.
--- Raises for what is no address.
---@param servers? string[] # numeric addresses, with `:port` where it is not 53 (`[::1]:8600` for IPv6); nil for those of the system again
---@return boolean # true
function lunashard.set_dns_servers(servers) end

--- Send warnings to a function of one's own.
---@param fn? function # called with each message, and its event where there is one; nil restores stderr
---@return function # what took them before, for putting it back
function lunashard.set_warn(fn) end

--- Wait without blocking others. Yields.
---@param seconds number # not negative
function lunashard.sleep(seconds) end

--- Start a task. It runs from the next turn of the loop on.
---@param fn function
---@param ... any # its arguments
---@return lunashard.Task # with `join`, `cancel`, `status`
function lunashard.spawn(fn, ...) end

--- Tasks, and turns of the loop that took too long.
--- While one task computes, or anything else does without waiting, all others stand still, and so does all that is
--- heard of servers. A turn of more than 100 ms is counted here, and said on stderr with the task that ran, by the
--- place of its function and of the wait that it came to; one line in ten seconds at the most.
---@return table # `tasks` and `operations` (under way), `stalls` (how many), `stalled_seconds` (in all), `longest_stall` (seconds), `last_stall` (what was said of it; nil when there was none)
function lunashard.stats() end

--- What a plug-in finds under this name.
---@class lunashard.PluginLibrary
---@field hash fun(key: any, n: integer, key_type?: string|string[]): integer PostgreSQL's hash of a key, 0 to n - 1
---@type lunashard.PluginLibrary
_G.lunashard = nil

--- What `lunashard run -c` and the cluster file set for scripts.
---@type lunashard.Cluster
cluster = nil
---@type lunashard.Manager
manager = nil
---@type lunashard.Router
router = nil

return lunashard
