"""asyncpg through a transaction pool of 5, with its own statement cache left on."""

import asyncio

import asyncpg

from asyncpg_options import options

OPTIONS = options("scram")


async def prepared_statements():
    one, two = await asyncpg.connect(**OPTIONS), await asyncpg.connect(**OPTIONS)
    for number in range(200):
        for connection in (one, two):
            assert await connection.fetchval("select $1::int + 1", number) == number + 1
    statement = await one.prepare("select $1::text || $2::text")
    for _ in range(10):
        assert await two.fetchval("select 'between'") == "between"
        assert await statement.fetchval("a", "b") == "ab"
    await one.close()
    await two.close()


async def transactions_and_savepoints():
    connection = await asyncpg.connect(**OPTIONS)
    await connection.execute("create table asyncpg_t (x int)")
    try:
        async with connection.transaction():
            await connection.execute("insert into asyncpg_t values (1)")
            raise RuntimeError("roll back")
    except RuntimeError:
        pass
    async with connection.transaction():
        await connection.execute("insert into asyncpg_t values (2)")
        try:
            async with connection.transaction():
                await connection.execute("insert into asyncpg_t values (3)")
                await connection.execute("select 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        await connection.executemany("insert into asyncpg_t values ($1)", [(n,) for n in range(10, 500)])
    rows = await connection.fetch("select x from asyncpg_t order by x")
    assert [row["x"] for row in rows] == [2, *range(10, 500)]
    async with connection.transaction():
        cursor = await connection.cursor("select x from asyncpg_t order by x")
        assert [row["x"] for row in await cursor.fetch(3)] == [2, 10, 11]
        assert [row["x"] for row in await cursor.fetch(2)] == [12, 13]
    await connection.close()


async def copies():
    connection = await asyncpg.connect(**OPTIONS)
    await connection.execute("create table asyncpg_copy (x int, y text)")
    records = [(number, "y" * 100) for number in range(20_000)]
    result = await connection.copy_records_to_table("asyncpg_copy", records=records)
    assert result == "COPY 20000", result
    size = 0

    async def count(data):
        nonlocal size
        size += len(data)

    await connection.copy_from_query("select y from asyncpg_copy", output=count)
    assert size == 20_000 * 101, size
    try:
        await connection.copy_records_to_table("asyncpg_copy", records=[(1, "x"), ("no number", 2)])
        raise AssertionError("the error was lost")
    except (asyncpg.PostgresError, asyncpg.DataError, TypeError):
        pass
    assert await connection.fetchval("select count(*) from asyncpg_copy") == 20_000
    await connection.close()


async def cancellation():
    connection = await asyncpg.connect(**OPTIONS)
    for _ in range(5):
        try:
            await connection.fetch("select pg_sleep(30)", timeout=0.2)
            raise AssertionError("not cancelled")
        except asyncio.TimeoutError:
            pass
        assert await connection.fetchval("select 1") == 1
    await connection.close()


async def settings():
    one = await asyncpg.connect(**OPTIONS, server_settings={"work_mem": "6MB", "application_name": "one"})
    two = await asyncpg.connect(**OPTIONS)
    await one.execute("set timezone to 'Asia/Tokyo'")
    for _ in range(20):
        assert await one.fetchval("show timezone") == "Asia/Tokyo"
        assert await one.fetchval("show work_mem") == "6MB"
        assert await two.fetchval("show work_mem") == "4MB"
        assert await two.fetchval("show timezone") != "Asia/Tokyo"
    await one.reset()
    assert await one.fetchval("show work_mem") == "6MB"
    await one.close()
    await two.close()


async def schema_changes():
    one, two = await asyncpg.connect(**OPTIONS), await asyncpg.connect(**OPTIONS)
    await one.execute("create table asyncpg_ddl as select 1 as x")
    assert len(await one.fetchrow("select * from asyncpg_ddl")) == 1
    await two.execute("alter table asyncpg_ddl add column y int default 2")
    # asyncpg parses again by itself after the error that PostgreSQL gives for an old plan.
    assert len(await one.fetchrow("select * from asyncpg_ddl")) == 2
    assert len(await two.fetchrow("select * from asyncpg_ddl")) == 2
    await one.close()
    await two.close()


async def one_of_many(number):
    connection = await asyncpg.connect(**OPTIONS)
    for step in range(20):
        value = number * 1000 + step
        async with connection.transaction():
            first = await connection.fetchrow("select $1::int, pg_backend_pid()", value)
            second = await connection.fetchrow("select $1::text, pg_backend_pid()", str(value))
        assert first[0] == value and second[0] == str(value), (first, second, value)
        assert first[1] == second[1], "a transaction moved to another server"
    await connection.close()


async def a_pool():
    async with asyncpg.create_pool(**OPTIONS, min_size=5, max_size=20) as pool:
        async def work(number):
            async with pool.acquire() as connection:
                assert await connection.fetchval("select $1::int", number) == number

        await asyncio.gather(*(work(number) for number in range(300)))


async def main():
    steps = (prepared_statements, transactions_and_savepoints, copies, cancellation, settings,
             schema_changes, a_pool)
    for step in steps:
        await step()
        print(step.__name__, "done")
    await asyncio.gather(*(one_of_many(number) for number in range(50)))
    print("all done")


asyncio.run(main())
