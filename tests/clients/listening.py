"""LISTEN by psycopg and asyncpg, each with more listeners than the pool of 5 has connections."""

import asyncio
import os

import asyncpg
import psycopg

from asyncpg_options import options

OPTIONS = options("scram")
DSN = {
    "host": "127.0.0.1",
    "port": int(os.environ["PGIMBAL_PORT"]),
    "user": "scram",
    "password": "scram-secret",
    "dbname": "app",
}
LISTENERS = 12


def psycopg_in_every_kind_of_transaction():
    listeners = [psycopg.connect(**DSN, autocommit=number % 2 == 0) for number in range(LISTENERS)]
    for number, connection in enumerate(listeners):
        connection.execute(f'LISTEN "channel {number % 3}"')
        connection.commit()
    with psycopg.connect(**DSN, autocommit=True) as other:
        for number in range(30):
            other.execute("SELECT pg_notify(%s, %s)", (f"channel {number % 3}", str(number)))
    for number, connection in enumerate(listeners):
        expected = [str(n) for n in range(30) if n % 3 == number % 3]
        # As many as are due, or the test ends by its timeout.
        heard = [notify.payload for notify in connection.notifies(stop_after=len(expected))]
        assert heard[: len(expected)] == expected, (number, heard)
        connection.execute("SELECT 1")
        connection.close()


async def asyncpg_with_callbacks():
    heard = {number: [] for number in range(LISTENERS)}
    listeners = [await asyncpg.connect(**OPTIONS) for _ in range(LISTENERS)]

    def callback(number):
        return lambda connection, pid, channel, payload: heard[number].append((channel, payload))

    callbacks = [callback(number) for number in range(LISTENERS)]
    for number, connection in enumerate(listeners):
        await connection.add_listener(f"Queue {number % 3}", callbacks[number])
    pool = await asyncpg.create_pool(**OPTIONS, min_size=1, max_size=3)
    for number in range(30):
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_notify($1, $2)", f"Queue {number % 3}", str(number))
    for number in range(LISTENERS):
        expected = [(f"Queue {number % 3}", str(n)) for n in range(30) if n % 3 == number % 3]
        async with asyncio.timeout(20):
            while len(heard[number]) < len(expected):
                await asyncio.sleep(0.01)
        assert heard[number] == expected, (number, heard[number])
    for number, connection in enumerate(listeners):
        async with connection.transaction():
            assert await connection.fetchval("select $1::int", number) == number
        await connection.remove_listener(f"Queue {number % 3}", callbacks[number])
        await connection.reset()
        await connection.close()
    # A pooled connection that listens is reset when it goes back.
    async with pool.acquire() as connection:
        await connection.add_listener("left", print)
        await connection.remove_listener("left", print)
    await pool.close()


psycopg_in_every_kind_of_transaction()
asyncio.run(asyncpg_with_callbacks())
print("all done")
