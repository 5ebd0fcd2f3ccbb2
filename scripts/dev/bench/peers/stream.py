"""All rows in order: a cursor on each shard, fetched ahead, merged by heapq.merge as far as what is here allows."""
import asyncio
import bisect
import heapq
import operator
import time

import asyncpg
import common

KEY = operator.itemgetter(0)


class Source:
    def __init__(self, cursor, prefetch):
        self.cursor, self.prefetch = cursor, prefetch
        self.rows, self.at, self.ended = [], 0, False
        self.ahead = asyncio.create_task(cursor.fetch(prefetch))

    async def fill(self):
        """Have rows, unless this was the end."""
        if self.at == len(self.rows) and not self.ended:
            self.rows, self.at = await self.ahead, 0
            self.ended = len(self.rows) < self.prefetch
            self.ahead = None if self.ended else asyncio.create_task(self.cursor.fetch(self.prefetch))

    def take(self, bound):
        end = len(self.rows) if bound is None else bisect.bisect_right(self.rows, bound, self.at, key=KEY)
        rows, self.at = self.rows[self.at:end], end
        return rows


async def main(options):
    connections = [await asyncpg.connect(**common.where(options, server)) for server in options["servers"]]
    transactions = [connection.transaction() for connection in connections]
    for transaction in transactions:
        await transaction.start()
    began = time.monotonic()
    sources = [Source(await connection.cursor(options["sql"]), options["prefetch"]) for connection in connections]
    count, last = 0, 0
    while True:
        for source in sources:
            await source.fill()
        bounds = [KEY(source.rows[-1]) for source in sources if not source.ended]
        parts = [source.take(min(bounds) if bounds else None) for source in sources]
        for row in heapq.merge(*parts, key=KEY):
            key = row[0]
            assert key > last
            last = key
            count += 1
        if not bounds:
            break
    elapsed = time.monotonic() - began
    assert count == options["rows"], count
    for connection in connections:
        await connection.close()
    return {"rate": count / elapsed, "seconds": elapsed}

common.run(main)
