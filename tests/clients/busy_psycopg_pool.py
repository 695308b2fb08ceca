"""A busy psycopg_pool with `check`: it asks each connection before it hands it out, and its clients
never pause for long. tests/src/busy_pool.rs has the conversation."""

import os
import random
import sys
import threading

from psycopg_pool import ConnectionPool

CLIENTS = int(os.environ["BUSY_CLIENTS"])
NAME = os.environ["BUSY_NAME"]
PAUSE = float(os.environ["BUSY_PAUSE"])

over = threading.Event()
lock = threading.Lock()
begun = threading.Barrier(CLIENTS + 1)
counts = {"acknowledged": 0, "errors": 0, "failed": 0}


def transaction(pool, id):
    with pool.connection() as connection:
        connection.execute("insert into done (id) values (%s)", (id,))
        connection.execute("select pg_sleep(0.005)")


def work(pool, prefix):
    number, acknowledged, errors = 0, 0, 0
    while not over.is_set():
        try:
            transaction(pool, f"{prefix}-{number}")
            acknowledged += 1
        except Exception as error:
            errors += 1
            print(f"{prefix}-{number}: {type(error).__name__} {error}", file=sys.stderr)
        if number == 0:
            begun.wait()
        number += 1
        over.wait(random.uniform(0.5, 1.5) * PAUSE)
    with lock:
        counts["acknowledged"] += acknowledged
        counts["errors"] += errors
        counts["failed"] += errors > 0


user = os.environ.get("BUSY_USER", "app")
password = os.environ.get("BUSY_PASSWORD", "app-secret")
conninfo = (
    f"host=127.0.0.1 port={os.environ['PGIMBAL_PORT']} dbname=app user={user} password={password}"
)
pool = ConnectionPool(
    conninfo, min_size=CLIENTS, max_size=CLIENTS, check=ConnectionPool.check_connection, open=True
)
pool.wait(timeout=60)
workers = [
    threading.Thread(target=work, args=(pool, f"{NAME}-{worker}")) for worker in range(CLIENTS)
]
for worker in workers:
    worker.start()
begun.wait()
print("busy", flush=True)
# The test closes it when the clients shall stop.
sys.stdin.read()
over.set()
for worker in workers:
    worker.join()
pool.close()
print("acknowledged {acknowledged} errors {errors} failed {failed}".format(**counts), flush=True)
