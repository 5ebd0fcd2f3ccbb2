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
    """The index of each key's shard, made beforehand: routes[key]."""
    with open(options["routes"], "rb") as file:
        return b"\0" + file.read().translate(bytes((byte - 48) % 256 for byte in range(256)))


MASK = 0xffffffff


def rot(value, n):
    return ((value << n) | (value >> (32 - n))) & MASK


def seeded(seed):
    """lookup3's state for four bytes after the seed: hash_uint32_extended before the key comes."""
    a = b = c = (0x9e3779b9 + 4 + 3923095) & MASK
    a, b = (a + (seed >> 32)) & MASK, (b + (seed & MASK)) & MASK
    a, c = ((a - c) & MASK) ^ rot(c, 4), (c + b) & MASK
    b, a = ((b - a) & MASK) ^ rot(a, 6), (a + c) & MASK
    c, b = ((c - b) & MASK) ^ rot(b, 8), (b + a) & MASK
    a, c = ((a - c) & MASK) ^ rot(c, 16), (c + b) & MASK
    b, a = ((b - a) & MASK) ^ rot(a, 19), (a + c) & MASK
    c, b = ((c - b) & MASK) ^ rot(b, 4), (b + a) & MASK
    return a, b, c


A, B, C = seeded(0x7A5B22367996DCFD)


def shard_of(key, shards):
    """The index of a key's shard, as PARTITION BY HASH computes it for a key from 0 on; no calls, for these are dear."""
    a = (A + ((key & MASK) ^ (key >> 32))) & MASK
    b = B
    c = ((C ^ b) - (b << 14 & MASK | b >> 18)) & MASK
    a = ((a ^ c) - (c << 11 & MASK | c >> 21)) & MASK
    b = ((b ^ a) - (a << 25 & MASK | a >> 7)) & MASK
    c = ((c ^ b) - (b << 16 & MASK | b >> 16)) & MASK
    a = ((a ^ c) - (c << 4 & MASK | c >> 28)) & MASK
    b = ((b ^ a) - (a << 14 & MASK | a >> 18)) & MASK
    c = ((c ^ b) - (b << 24 & MASK | b >> 8)) & MASK
    return ((b << 32 | c) + 0x49a0f4dd15e5a8e3 & 0xffffffffffffffff) % shards
