"""Bulk load: rows are made and routed, then all shards load theirs at the same time."""
import asyncio
import time

import asyncpg
import common

COLUMNS = ["user_id", "name", "email", "is_active"]


async def main(options):
    connections = [await asyncpg.connect(**common.where(options, server)) for server in options["servers"]]
    shard_of = common.routes(options)
    began = time.monotonic()
    parts = [[] for _ in connections]
    for key in range(1, options["rows"] + 1):
        parts[shard_of[key]].append((key, f"user {key}", f"user{key}@example.com", key % 3 != 0))
    await asyncio.gather(*(
        connection.copy_records_to_table("loads", records=part, columns=COLUMNS)
        for connection, part in zip(connections, parts)))
    elapsed = time.monotonic() - began
    for connection in connections:
        await connection.close()
    return {"rate": options["rows"] / elapsed, "seconds": elapsed}

common.run(main)
