"""What the asyncpg peers share: options, the fastest loop there is, connections, figures as JSON."""
import asyncio
import json
import sys

import asyncpg


def run(main):
    with open(sys.argv[1]) as file:
        options = json.load(file)
    try:
        import uvloop
        uvloop.install()
    except ImportError:
        pass
    print(json.dumps(asyncio.run(main(options))))


def where(options, server):
    return dict(host=server["host"], port=server["port"], database=server["database"],
                user=options["user"], password=options["password"])


async def pools(options, connections):
    """One pool a shard with min_size = max_size, `connections` in all."""
    servers = options["servers"]
    made = []
    for i, server in enumerate(servers):
        size = connections // len(servers) + (i < connections % len(servers))
        made.append(await asyncpg.create_pool(min_size=size, max_size=size, **where(options, server)))
    return made


def routes(options):
    """The index of each key's shard: routes[key]."""
    with open(options["routes"], "rb") as file:
        return b"\0" + file.read().translate(bytes((byte - 48) % 256 for byte in range(256)))
