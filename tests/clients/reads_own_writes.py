"""Writes and reads back, by the driver that is named; tests/tests/reads/drivers.rs says how."""

import asyncio
import itertools
import os
import random
import sys
import threading
import time
from contextlib import AsyncExitStack, ExitStack

import asyncpg
import psycopg

CLIENTS = int(os.environ["READS_CLIENTS"])
FIRST = int(os.environ["READS_FIRST_ID"])
PAIRS = int(os.environ["READS_PAIRS"])
PAUSE = float(os.environ["READS_PAUSE"])
WRITER = (int(os.environ["READS_WRITE_PORT"]), os.environ["READS_WRITE_DATABASE"])
READER = (int(os.environ["PGIMBAL_PORT"]), os.environ["READS_DATABASE"])
SAME = os.environ["READS_SESSIONS"] == "same"
WRITE = "update pairs set pair = {0} where id = {1} and pair < {0}"
READ = "select pair, is_standby() from pairs where id = {0}"
WAYS = ["autocommit", "transaction", "read_only"]

counts = {way: [0, 0] for way in WAYS}
counting = threading.Lock()
running = threading.Semaphore(0)
over = threading.Event()


def pairs():
    """The pairs of a client, from 1 on, each with its way, for as long as it shall go on."""
    for pair in itertools.count(1):
        if pair == 2:
            running.release()
        if pair > PAIRS and over.is_set():
            return
        yield pair, WAYS[pair % len(WAYS)]


def pause():
    """Every second read follows its write at once, in seconds."""
    return random.uniform(0, PAUSE) if random.random() < 0.5 else 0


def count(way, row, id, pair):
    if row[0] != pair:
        print(f"a stale read of {id}: {row} instead of {pair}, {way}", file=sys.stderr, flush=True)
        os._exit(1)
    with counting:
        counts[way][0] += 1
        counts[way][1] += row[1]


def trouble(error, id):
    print(f"client {id}: {type(error).__name__} {error}", file=sys.stderr, flush=True)


def psycopg_pair(writer, reader, way, id, pair):
    # Psycopg begins a transaction by itself.
    writer.autocommit = way == "autocommit"
    writer.execute(WRITE.format("%(pair)s", "%(id)s"), dict(id=id, pair=pair))
    if way != "autocommit":
        writer.commit()
    time.sleep(pause())
    reader.autocommit = way != "read_only"
    reader.read_only = True if way == "read_only" else None
    row = reader.execute(READ.format("%s"), (id,)).fetchone()
    if way == "read_only":
        reader.commit()
        reader.read_only = None
    count(way, row, id, pair)


def psycopg_client(id):
    def connect(port, database):
        return psycopg.connect(
            host="127.0.0.1", port=port, dbname=database, user="app", password="app-secret"
        )

    todo = pairs()
    while True:
        try:
            with ExitStack() as opened:
                writer = opened.enter_context(connect(*WRITER))
                reader = writer if SAME else opened.enter_context(connect(*READER))
                for pair, way in todo:
                    psycopg_pair(writer, reader, way, id, pair)
                return
        except psycopg.Error as error:
            trouble(error, id)
            time.sleep(0.05)


async def asyncpg_pair(writer, reader, way, id, pair):
    write = WRITE.format("$1", "$2")
    if way == "autocommit":
        await writer.execute(write, pair, id)
    else:
        async with writer.transaction():
            await writer.execute(write, pair, id)
    await asyncio.sleep(pause())
    async with AsyncExitStack() as block:
        if way == "read_only":
            await block.enter_async_context(reader.transaction(readonly=True))
        row = await reader.fetchrow(READ.format("$1"), id)
    count(way, row, id, pair)


async def asyncpg_client(id):
    async def connect(opened, port, database):
        connection = await asyncpg.connect(
            host="127.0.0.1", port=port, database=database, user="app", password="app-secret"
        )
        opened.callback(connection.terminate)
        return connection

    todo = pairs()
    while True:
        try:
            with ExitStack() as opened:
                writer = await connect(opened, *WRITER)
                reader = writer if SAME else await connect(opened, *READER)
                for pair, way in todo:
                    await asyncpg_pair(writer, reader, way, id, pair)
                return
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            trouble(error, id)
            await asyncio.sleep(0.05)


async def asyncpg_clients(ids):
    await asyncio.gather(*(asyncpg_client(id) for id in ids))


def threads(driver):
    ids = range(FIRST, FIRST + CLIENTS)
    if driver == "asyncpg":
        return [threading.Thread(target=lambda: asyncio.run(asyncpg_clients(ids)))]
    return [threading.Thread(target=psycopg_client, args=(id,)) for id in ids]


def die(failure):
    sys.__excepthook__(failure.exc_type, failure.exc_value, failure.exc_traceback)
    os._exit(1)


def look_at(what):
    print("look at", what, flush=True)
    sys.stdin.readline()


threading.excepthook = die
clients = threads(sys.argv[1])
for client in clients:
    client.start()
for _ in range(CLIENTS):
    running.acquire()
look_at("running")
over.set()
for client in clients:
    client.join()
for way in WAYS:
    look_at(f"{way} {counts[way][0]} {counts[way][1]}")
print("all done", flush=True)
