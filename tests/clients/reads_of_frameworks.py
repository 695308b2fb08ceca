"""Reads as docs/reads.md says that frameworks make them, and one way that stays on the primary.

READS_OF names the way, and READS is the number of reads of table `items`.
"""

import os
import time

# Seconds for which an application does something else.
PAUSE = 0.01
READS = int(os.environ["READS"])
PORT = os.environ["PGIMBAL_PORT"]
URL = f"postgresql+psycopg://app:app-secret@127.0.0.1:{PORT}/auto"
CONNINFO = f"host=127.0.0.1 port={PORT} user=app password=app-secret dbname=auto"


def django(atomic, options=None):
    import django as framework
    from django.conf import settings

    settings.configure(
        USE_TZ=True,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "HOST": "127.0.0.1",
                "PORT": PORT,
                "NAME": "auto",
                "USER": "app",
                "PASSWORD": "app-secret",
                "OPTIONS": options or {},
            }
        },
    )
    framework.setup()
    from django.db import models, transaction

    class Item(models.Model):
        id = models.IntegerField(primary_key=True)
        name = models.TextField()

        class Meta:
            app_label = "shop"
            db_table = "items"
            managed = False

    def read(step):
        [
            lambda: Item.objects.filter(id=step).first(),
            lambda: Item.objects.count(),
            lambda: Item.objects.filter(name__icontains="a").exists(),
            lambda: list(Item.objects.values("name").annotate(n=models.Count("id"))[:5]),
        ][step % 4]()

    for step in range(READS):
        time.sleep(PAUSE)
        if atomic:
            with transaction.atomic():
                read(step)
        else:
            read(step)


def sqlalchemy(**options):
    from sqlalchemy import Integer, Text, create_engine, func, select
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(Integer, primary_key=True)
        name: Mapped[str] = mapped_column(Text)

    engine = create_engine(URL, execution_options=options)
    for step in range(READS):
        time.sleep(PAUSE)
        with Session(engine) as session:
            if step % 2:
                session.get(Item, step)
            else:
                session.scalar(select(func.count()).select_from(Item))


def psycopg(read_only):
    import psycopg as driver

    with driver.connect(CONNINFO) as connection:
        connection.read_only = read_only
        for step in range(READS):
            time.sleep(PAUSE)
            connection.execute("select name from items where id = %s", [step])
            connection.commit()


WAYS = {
    "django": lambda: django(atomic=False),
    "django with an alias for the primary": lambda: django(
        atomic=False, options={"options": "-c pgimbal.route=primary"}
    ),
    "django with ATOMIC_REQUESTS": lambda: django(atomic=True),
    "sqlalchemy": lambda: sqlalchemy(),
    "sqlalchemy in autocommit": lambda: sqlalchemy(isolation_level="AUTOCOMMIT"),
    "sqlalchemy, read only": lambda: sqlalchemy(postgresql_readonly=True),
    "psycopg, read only": lambda: psycopg(read_only=True),
}
WAYS[os.environ["READS_OF"]]()
