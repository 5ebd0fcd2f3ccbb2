"""Bulk load: rows are made and routed, then all shards load theirs at the same time.

Routed by the hash of their key, or with the option `routes` by an array in which the answers stand already."""
import asyncio
import time

import asyncpg
import common

COLUMNS = ["user_id", "name", "email", "is_active"]


async def main(options):
    connections = [await asyncpg.connect(**common.where(options, server)) for server in options["servers"]]
    known, shard_of, n = common.routes(options) if "routes" in options else None, common.shard_of, len(connections)
    began = time.monotonic()
    parts = [[] for _ in connections]
    for key in range(1, options["rows"] + 1):
        shard = shard_of(key, n) if known is None else known[key]
        parts[shard].append((key, f"user {key}", f"user{key}@example.com", key % 3 != 0))
    await asyncio.gather(*(
        connection.copy_records_to_table("loads", records=part, columns=COLUMNS)
        for connection, part in zip(connections, parts)))
    elapsed = time.monotonic() - began
    for connection in connections:
        await connection.close()
    return {"rate": options["rows"] / elapsed, "seconds": elapsed}

common.run(main)
