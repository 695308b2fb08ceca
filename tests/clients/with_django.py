"""Django with more connections than the pool has: iterator(), ATOMIC_REQUESTS, savepoints.

Each thread has a connection of its own, as the threads of an application server do. With
SERVER_SIDE_BINDING the values are bound instead of written into the text.
"""

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import django
from django.conf import settings

THREADS = 12
ROWS = 500

settings.configure(
    INSTALLED_APPS=["shop"],
    ROOT_URLCONF="shop.urls",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="tests",
    USE_TZ=True,
    LOGGING_CONFIG=None,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": "127.0.0.1",
            "PORT": os.environ["PGIMBAL_PORT"],
            "NAME": "app",
            "USER": "scram",
            "PASSWORD": "scram-secret",
            # Not the server's, so that each connection sets it.
            "TIME_ZONE": "Asia/Tokyo",
            "ATOMIC_REQUESTS": True,
            "OPTIONS": {"server_side_binding": bool(os.environ.get("SERVER_SIDE_BINDING"))},
        }
    },
)
django.setup()
# What the views raise is the test's own.
logging.disable(logging.CRITICAL)

from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.db import DataError, connection, connections, transaction  # noqa: E402
from django.test import RequestFactory  # noqa: E402

from shop.models import Event, Item  # noqa: E402

ALL_THERE = threading.Barrier(THREADS)


def each(work):
    """Runs `work(thread)` in all threads, which keep their connections."""

    def together(thread):
        # Or a quick thread would do the work of two.
        ALL_THERE.wait(60)
        work(thread)

    for future in [POOL.submit(together, thread) for thread in range(THREADS)]:
        future.result()


def open_connection(thread):
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)


def time_zone(thread):
    with connection.cursor() as cursor:
        cursor.execute("show timezone")
        assert cursor.fetchone() == ("Asia/Tokyo",)


def iterators_outside_atomic(thread):
    for _ in range(2):
        seen = 0
        for item in Item.objects.order_by("number").iterator(chunk_size=100):
            assert item.number == seen, (item.number, seen)
            if seen % 100 == 0:
                # What the body of such a loop does, beside the open cursor.
                assert Item.objects.filter(number=seen).count() == 1
            seen += 1
        assert seen == ROWS, seen
    # One that is left early, and one that fails.
    few = Item.objects.order_by("number").iterator(chunk_size=10)
    assert [next(few).number for _ in range(15)] == list(range(15))
    few.close()
    try:
        list(Item.objects.extra(select={"bad": "1 / (number - 250)"}).order_by("number").iterator(chunk_size=50))
        raise AssertionError("the error was lost")
    except DataError:
        pass
    assert Item.objects.count() == ROWS


def iterators_inside_atomic(thread):
    with transaction.atomic():
        one = Item.objects.order_by("number").iterator(chunk_size=50)
        two = Item.objects.order_by("-number").iterator(chunk_size=50)
        pairs = [(a.number, b.number) for a, b in zip(one, two)]
        assert pairs == [(n, ROWS - 1 - n) for n in range(ROWS)], pairs[:3]
    try:
        with transaction.atomic():
            Item.objects.create(number=10_000 + thread, owner="undone")
            with closing(Item.objects.order_by("number").iterator(chunk_size=50)) as items:
                assert next(items).number == 0
                raise RuntimeError("roll back")
    except RuntimeError:
        pass
    assert not Item.objects.filter(owner="undone").exists()


def requests(thread):
    # Django's test client hands an exception of one thread's view to every other one.
    handler = WSGIHandler()

    def get(path):
        answer = handler.get_response(RequestFactory().get(path))
        if thread == 0:
            # As the application server does, which without CONN_MAX_AGE ends the connection.
            answer.close()
        return answer.status_code, answer.content

    for step in range(5):
        number = 100_000 + thread * 100 + step
        assert get(f"/write/{number}") == (200, b'{"number": %d}' % number)
        assert get(f"/raise/{number + 50}")[0] == 500
        assert list(Event.objects.filter(item__number=number).values_list("text", flat=True)) == ["kept"]
    mine = Item.objects.filter(number__gte=100_000 + thread * 100, number__lt=100_100 + thread * 100)
    assert mine.count() == 5, mine.count()


def plain_load(thread):
    for step in range(10):
        number = 200_000 + thread * 100 + step
        item = Item.objects.create(number=number, owner=f"thread {thread}")
        with transaction.atomic():
            found = Item.objects.select_for_update().get(number=number)
            found.owner = found.owner.upper()
            found.save()
            Event.objects.bulk_create([Event(item=found, text=str(n)) for n in range(5)])
        assert Item.objects.prefetch_related("events").get(pk=item.pk).events.count() == 5
        assert Item.objects.filter(owner=f"THREAD {thread}").count() == step + 1
        assert Event.objects.filter(item=item).delete()[0] == 5
        if step == 5:
            # As at the end of a request without CONN_MAX_AGE.
            connection.close()
    time_zone(thread)


def close(thread):
    connections.close_all()


def look(what):
    print("look at", what, flush=True)
    input()


with connection.schema_editor() as editor:
    editor.create_model(Item)
    editor.create_model(Event)
Item.objects.bulk_create([Item(number=number, owner="first") for number in range(ROWS)])
with ThreadPoolExecutor(THREADS) as POOL:
    each(open_connection)
    for step in (iterators_outside_atomic, iterators_inside_atomic):
        each(step)
        look(step.__name__)
    each(requests)
    Item.objects.filter(number__gte=ROWS).delete()
    look("requests")
    look("the start of the plain load")
    each(plain_load)
    look("the end of the plain load")
    each(time_zone)
    assert Item.objects.filter(number__gte=200_000).count() == 10 * THREADS
    each(close)
print("all done")
