"""psycopg 3 through a transaction pool of 5: what applications do with it every day."""

import asyncio
import os
import threading
import time

import psycopg
from psycopg import pq

PORT = os.environ["PGIMBAL_PORT"]
CONNINFO = f"host=127.0.0.1 port={PORT} user=scram password=scram-secret dbname=app"


def connect(**options):
    return psycopg.connect(CONNINFO, **options)


def prepared_statements():
    with connect(autocommit=True) as one, connect(autocommit=True) as two:
        for number in range(200):
            for connection in (one, two):
                row = connection.execute("select %s::int + 1", [number], prepare=True).fetchone()
                assert row == (number + 1,), row
        one.prepared_max = 3
        for number in range(20):
            row = one.execute(f"select {number}, %s::text", ["x"], prepare=True).fetchone()
            assert row == (number, "x"), row


def transactions_and_savepoints():
    with connect() as connection:
        connection.execute("create table if not exists psycopg_t (x int)")
        connection.commit()
        try:
            with connection.transaction():
                connection.execute("insert into psycopg_t values (1)")
                raise RuntimeError("roll back")
        except RuntimeError:
            pass
        with connection.transaction():
            connection.execute("insert into psycopg_t values (2)")
            try:
                with connection.transaction():
                    connection.execute("insert into psycopg_t values (3)")
                    connection.execute("select 1/0")
            except psycopg.errors.DivisionByZero:
                pass
            connection.execute("insert into psycopg_t values (4)")
        rows = connection.execute("select x from psycopg_t order by x").fetchall()
        assert rows == [(2,), (4,)], rows


def pipelines():
    with connect(autocommit=True) as connection:
        with connection.pipeline():
            cursors = [connection.execute("select %s::int", [n]) for n in range(500)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(500))
        try:
            with connection.pipeline() as pipeline:
                connection.execute("select 1")
                connection.execute("select no_such_column")
                connection.execute("select 2")
                pipeline.sync()
            raise AssertionError("the error was lost")
        except psycopg.errors.UndefinedColumn:
            pass
        assert connection.execute("select 3").fetchone() == (3,)


def copies():
    with connect() as connection:
        connection.execute("create table psycopg_copy (x int, y text)")
        with connection.cursor() as cursor:
            with cursor.copy("copy psycopg_copy from stdin") as copy:
                for number in range(20_000):
                    copy.write_row((number, "y" * 100))
            with cursor.copy("copy psycopg_copy to stdout") as copy:
                assert sum(1 for _ in copy.rows()) == 20_000
            connection.commit()
            try:
                with cursor.copy("copy psycopg_copy from stdin") as copy:
                    copy.write("no number\tx\n")
                raise AssertionError("the error was lost")
            except psycopg.errors.InvalidTextRepresentation:
                connection.rollback()
            try:
                with cursor.copy("copy psycopg_copy from stdin") as copy:
                    copy.write_row((1, "x"))
                    raise RuntimeError("changed my mind")
            except RuntimeError:
                connection.rollback()
        count = connection.execute("select count(*) from psycopg_copy").fetchone()
        assert count == (20_000,), count
        with connection.cursor(name="server_side") as cursor:
            cursor.execute("select x from psycopg_copy order by x")
            assert [row[0] for row in cursor.fetchmany(10)] == list(range(10))


def cancellation():
    with connect(autocommit=True) as connection:
        timer = threading.Timer(0.3, connection.cancel)
        timer.start()
        start = time.monotonic()
        try:
            connection.execute("select pg_sleep(30)")
            raise AssertionError("not cancelled")
        except psycopg.errors.QueryCanceled:
            assert time.monotonic() - start < 10
        timer.join()
        assert connection.execute("select 1").fetchone() == (1,)


def settings():
    with connect(autocommit=True, options="-c work_mem=6MB") as one, connect(autocommit=True) as two:
        one.execute("set timezone to 'Asia/Tokyo'")
        one.execute("select set_config('lock_timeout', '3s', false)")
        for _ in range(20):
            assert one.execute("show timezone").fetchone() == ("Asia/Tokyo",)
            assert one.execute("show work_mem").fetchone() == ("6MB",)
            assert two.execute("show lock_timeout").fetchone() == ("0",)
            assert two.execute("show timezone").fetchone() != ("Asia/Tokyo",)
        assert one.execute("show lock_timeout").fetchone() == ("3s",)
        assert one.info.parameter_status("TimeZone") == "Asia/Tokyo"
    assert pq.version() > 0


async def one_of_many(number):
    connection = await psycopg.AsyncConnection.connect(CONNINFO)
    async with connection:
        for step in range(20):
            value = number * 1000 + step
            async with connection.transaction():
                cursor = await connection.execute("select %s::int, pg_backend_pid()", [value])
                first = await cursor.fetchone()
                cursor = await connection.execute("select %s::text, pg_backend_pid()", [str(value)])
                second = await cursor.fetchone()
            assert first[0] == value and second[0] == str(value), (first, second, value)
            assert first[1] == second[1], "a transaction moved to another server"


async def many():
    await asyncio.gather(*(one_of_many(number) for number in range(50)))


for step in (prepared_statements, transactions_and_savepoints, pipelines, copies, cancellation, settings):
    step()
    print(step.__name__, "done")
asyncio.run(many())
print("all done")
