"""Writes and reads back at once, by the drivers that are named: each pair must agree.

PGIMBAL_PAIRS pairs for each driver. The last line but one says how many reads a replica has served.
"""

import asyncio
import os
import sys

import asyncpg
import psycopg

PAIRS = int(os.environ["PGIMBAL_PAIRS"])
WHERE = dict(
    host="127.0.0.1", port=int(os.environ["PGIMBAL_PORT"]), user="app", password="app-secret"
)
WRITE = "insert into items values ({0}, {1}) on conflict (id) do update set name = excluded.name"
READ = "select name, here() from items where id = {0}"
PRIMARY = os.environ["PGIMBAL_PRIMARY"]


def count(row, pair):
    assert row[0] == str(pair), f"a stale read: {row} instead of {pair}"
    return row[1] != PRIMARY


def with_psycopg(autocommit, id):
    on_replicas = 0
    write, read = WRITE.format("%s", "%s"), READ.format("%s")
    with psycopg.connect(dbname="auto", autocommit=autocommit, **WHERE) as connection:
        for pair in range(PAIRS):
            connection.execute(write, (id, str(pair)))
            if not autocommit:
                connection.commit()
                connection.read_only = True
            row = connection.execute(read, (id,)).fetchone()
            on_replicas += count(row, pair)
            if not autocommit:
                connection.commit()
                connection.read_only = None
    return on_replicas


async def with_asyncpg(id):
    on_replicas = 0
    connection = await asyncpg.connect(database="auto", **WHERE)
    write, read = WRITE.format("$1", "$2"), READ.format("$1")
    for pair in range(PAIRS):
        if pair % 2:
            await connection.execute(write, id, str(pair))
            row = await connection.fetchrow(read, id)
        else:
            async with connection.transaction():
                await connection.execute(write, id, str(pair))
            async with connection.transaction(readonly=True):
                row = await connection.fetchrow(read, id)
        on_replicas += count(row, pair)
    await connection.close()
    return on_replicas


DRIVERS = {
    "psycopg_autocommit": lambda: with_psycopg(True, 1),
    "psycopg_transactions": lambda: with_psycopg(False, 2),
    "asyncpg": lambda: asyncio.run(with_asyncpg(3)),
}

for name in sys.argv[1:]:
    print(name, DRIVERS[name](), flush=True)
print("all done", flush=True)
