"""asyncpg, whose server connection ends behind a Flush: asyncpg prepares so. An error that it did not
ask for would cost it its connection."""

import asyncio

import asyncpg

from asyncpg_options import options

OPTIONS = options("app")


def end_the_backend():
    print("look at the backend", flush=True)
    input()


async def read_what_has_come(connection):
    """An answer to another connection's question comes later than what lies in the socket."""
    other = await asyncpg.connect(**OPTIONS)
    assert await other.fetchval("select 1") == 1
    await other.close()
    assert not connection.is_closed(), "the connection is lost"


async def behind_a_prepare(connection):
    statement = await connection.prepare("select $1::int + 1")
    end_the_backend()
    await read_what_has_come(connection)
    assert await statement.fetchval(1) == 2


async def behind_a_prepare_in_a_transaction(connection):
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("select 1")
    statement = await connection.prepare("select $1::int + 2")
    end_the_backend()
    await read_what_has_come(connection)
    try:
        await statement.fetchval(1)
        raise AssertionError("the transaction is lost, and nobody says so")
    except asyncpg.AdminShutdownError:
        pass
    assert not connection.is_closed(), "the connection is lost"
    await transaction.rollback()
    assert await connection.fetchval("select $1::int + 3", 1) == 4


async def main():
    connection = await asyncpg.connect(**OPTIONS)
    for _ in range(3):
        await behind_a_prepare(connection)
        await behind_a_prepare_in_a_transaction(connection)
    await connection.close()
    print("all done")


asyncio.run(main())
