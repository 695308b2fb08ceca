"""Django with the settings of an example: with_example_settings.py django SETTINGS.PY, or authentik
with the variables of authentik.env in the environment.

Django migrates at first. The second part of `authentik` is what its migrations and its worker do
beside Django: a lock of the session while migrations run, LISTEN, and a lock for each task.
"""

import logging
import os
import runpy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import django
import psycopg
from django.conf import settings

THREADS = 10
ROWS = 300


def of_authentik():
    """The settings that authentik makes of its variables (authentik/lib/config.py)."""
    option = {
        name.removeprefix("AUTHENTIK_POSTGRESQL__"): value
        for name, value in os.environ.items()
        if name.startswith("AUTHENTIK_POSTGRESQL__")
    }
    password = option["PASSWORD"]
    if password.startswith("file://"):
        with open(password.removeprefix("file://"), encoding="utf-8") as file:
            password = file.read().strip()
    return {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": option["HOST"],
        "PORT": option["PORT"],
        "NAME": option["NAME"],
        "USER": option["USER"],
        "PASSWORD": password,
        "CONN_MAX_AGE": int(option["CONN_MAX_AGE"]),
        "CONN_HEALTH_CHECKS": option["CONN_HEALTH_CHECKS"] == "true",
        "DISABLE_SERVER_SIDE_CURSORS": option["DISABLE_SERVER_SIDE_CURSORS"] == "true",
        "OPTIONS": {"sslmode": option["SSLMODE"]},
    }


APPLICATION = sys.argv[1]
databases = (
    {"default": of_authentik()}
    if APPLICATION == "authentik"
    else runpy.run_path(sys.argv[2])["DATABASES"]
)
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_KEY="tests",
    USE_TZ=True,
    LOGGING_CONFIG=None,
    DATABASES=databases,
)
django.setup()
logging.disable(logging.CRITICAL)

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import close_old_connections, connection, connections, transaction  # noqa: E402

from shop.models import Event, Item  # noqa: E402


def look(what):
    print("look at", what, flush=True)
    input()


def plain_connection():
    default = settings.DATABASES["default"]
    return psycopg.connect(
        host=default["HOST"], port=default["PORT"], dbname=default["NAME"],
        user=default["USER"], password=default["PASSWORD"], autocommit=True,
    )


def migrate():
    call_command("migrate", run_syncdb=True, verbosity=0)


def migrate_under_a_lock(_):
    """As authentik's lifecycle/migrate.py, in two pods that start together."""
    with plain_connection() as lock:
        lock.execute("select pg_advisory_lock(%s)", (1000,))
        migrate()
        connections.close_all()
        assert lock.execute("select pg_advisory_unlock(%s)", (1000,)).fetchone() == (True,)


def request(thread, number):
    """What a request does."""
    close_old_connections()
    item = Item.objects.create(number=number, owner=f"thread {thread}")
    with transaction.atomic():
        found = Item.objects.select_for_update().get(pk=item.pk)
        Event.objects.bulk_create([Event(item=found, text=str(n)) for n in range(3)])
        try:
            with transaction.atomic():
                Item.objects.create(number=number, owner="twice")
            raise AssertionError("the error was lost")
        except django.db.IntegrityError:
            pass
    assert Item.objects.prefetch_related("events").get(pk=item.pk).events.count() == 3
    # A server-side cursor outside of a transaction, with other statements beside it.
    seen = 0
    for row in Item.objects.filter(number__lt=ROWS).order_by("number").iterator(chunk_size=100):
        if seen % 100 == 0:
            assert Item.objects.filter(number=seen).count() == 1
        assert row.number == seen
        seen += 1
    assert seen == ROWS
    close_old_connections()


def load(part):
    def work(thread):
        for step in range(5):
            request(thread, 10_000 * part + 100 * thread + step)

    list(POOL.map(work, range(THREADS)))


def load_during(what):
    """Requests of all threads, from before the test is asked to look until after it has."""
    over = threading.Event()
    begun = threading.Barrier(THREADS + 1)

    def work(thread):
        number = 1_000_000 + 10_000 * thread
        request(thread, number)
        begun.wait(60)
        while not over.is_set():
            number += 1
            request(thread, number)

    workers = [POOL.submit(work, thread) for thread in range(THREADS)]
    begun.wait(60)
    look(what)
    over.set()
    for worker in workers:
        worker.result()


def tasks():
    """As a consumer of django-dramatiq-postgres: it is told of tasks by a notification, and has a
    lock of its session on each while it works on it."""
    listening, locks = plain_connection(), plain_connection()
    listening.execute("listen tasks")
    for number in range(20):
        owner = f"task {number}"
        with transaction.atomic():
            Item.objects.create(number=5_000_000 + number, owner=owner)
            with connection.cursor() as cursor:
                cursor.execute("select pg_notify('tasks', %s)", [owner])
        told = [notify.payload for notify in listening.notifies(timeout=30, stop_after=1)]
        assert told == [owner], told
        take = "update shop_item set owner = 'taken' where owner = %s and pg_try_advisory_lock(%s)"
        assert locks.execute(take, (owner, number)).rowcount == 1
        # Another consumer does not get it.
        with connection.cursor() as cursor:
            cursor.execute("select pg_try_advisory_lock(%s)", [number])
            assert cursor.fetchone() == (False,)
        assert locks.execute("select pg_advisory_unlock(%s)", (number,)).fetchone() == (True,)
    listening.close()
    locks.close()


def consumers():
    """More consumers listen than the pool has connections. One reads server-side cursors beside
    that: in a transaction, and WITH HOLD."""
    listening = [plain_connection() for _ in range(25)]
    for consumer in listening:
        consumer.execute("listen tasks")
    reading = listening[0]
    with reading.transaction(), reading.cursor(name="in_a_transaction") as cursor:
        cursor.execute("select number from shop_item where number < %s order by number", [ROWS])
        assert [row[0] for row in cursor] == list(range(ROWS))
    with reading.cursor(name="beyond_it", withhold=True) as cursor:
        cursor.execute("select generate_series(1, 1000)")
        assert len(cursor.fetchmany(400)) == 400
        with connection.cursor() as other:
            other.execute("select pg_notify('tasks', 'beside a cursor')")
        assert len(cursor.fetchall()) == 600
    for consumer in listening:
        told = [notify.payload for notify in consumer.notifies(timeout=30, stop_after=1)]
        assert told == ["beside a cursor"], told
        consumer.close()


with ThreadPoolExecutor(THREADS) as POOL:
    if APPLICATION == "authentik":
        list(POOL.map(migrate_under_a_lock, range(2)))
    else:
        migrate()
    migrate()
    User.objects.create_user("somebody", password="tests")
    Item.objects.bulk_create([Item(number=number, owner="first") for number in range(ROWS)])
    load(1)
    if APPLICATION == "authentik":
        tasks()
        consumers()
    load_during("the rotation")
    look("the restart")
    load(2)
    list(POOL.map(lambda _: connections.close_all(), range(THREADS)))
connections.close_all()
print("all done")
