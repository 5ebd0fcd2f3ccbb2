"""Point reads by primary key from a pool for each shard; statements are prepared and cached by asyncpg."""
import asyncio
import random
import time

import common


async def main(options):
    pools = await common.pools(options, options["connections"])
    shard_of = common.routes(options)
    keys = options["keys"]
    done, stop = 0, False

    async def work():
        nonlocal done
        while not stop:
            key = int(random.random() * keys) + 1
            row = await pools[shard_of[key]].fetchrow("SELECT * FROM users WHERE user_id = $1", key)
            assert row["user_id"] == key
            done += 1

    tasks = [asyncio.create_task(work()) for _ in range(options["tasks"])]
    await asyncio.sleep(options["warm_up"])
    before, cpu, began = done, time.process_time(), time.monotonic()
    await asyncio.sleep(options["seconds"])
    count, cpu, elapsed = done - before, time.process_time() - cpu, time.monotonic() - began
    stop = True
    await asyncio.gather(*tasks)
    for pool in pools:
        await pool.close()
    return {"rate": count / elapsed, "cpu": cpu / count}

common.run(main)
