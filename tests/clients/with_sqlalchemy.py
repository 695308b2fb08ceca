"""SQLAlchemy on psycopg 3: 12 tenants on a pool of 8, each told by a bound set_config."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

TENANTS = 12
URL = f"postgresql+psycopg://scram:scram-secret@127.0.0.1:{os.environ['PGIMBAL_PORT']}/app"


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    # The table has no key of its own; SQLAlchemy wants one.
    tenant: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str] = mapped_column(primary_key=True)


def orders(session):
    found = session.scalars(select(Order).order_by(Order.item)).all()
    return {order.tenant for order in found}, len(found)


def tenant_of(session):
    return session.scalar(text("select current_setting('app.tenant_id', true)"))


TOGETHER = threading.Barrier(TENANTS)


def for_the_session(tenant):
    """set_config(…, false) once, then transactions that find it."""
    engine = create_engine(URL, pool_size=1, max_overflow=0)

    @event.listens_for(engine, "checkout")
    def tell(connection, record, proxy):
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
        connection.commit()

    for step in range(5):
        TOGETHER.wait(60)
        with engine.connect() as connection, Session(connection) as session:
            for _ in range(3):
                assert orders(session) == ({tenant}, tenant), (tenant, tenant_of(session))
                session.commit()
            other = tenant % TENANTS + 1
            session.execute(text("SELECT set_config('app.tenant_id', :tenant, false)"), {"tenant": str(other)})
            session.commit()
            assert orders(session) == ({other}, other)
            # What is rolled back leaves the one before.
            session.execute(select(func.set_config("app.tenant_id", str(tenant), False)))
            assert orders(session) == ({tenant}, tenant)
            session.rollback()
            assert orders(session) == ({other}, other)
    return engine


def for_the_transaction(tenant):
    """set_config(…, true) in each transaction, gone at its end."""
    engine = create_engine(URL, pool_size=1, max_overflow=0)
    for step in range(5):
        TOGETHER.wait(60)
        with Session(engine) as session:
            session.execute(text("SELECT set_config('app.tenant_id', :tenant, true)"), {"tenant": str(tenant)})
            assert orders(session) == ({tenant}, tenant)
            with session.begin_nested():
                session.execute(text("insert into orders values (:tenant, 'new')"), {"tenant": tenant})
                assert orders(session) == ({tenant}, tenant + 1)
            session.rollback()
            assert tenant_of(session) in (None, "")
            session.commit()
            session.execute(select(func.set_config("app.tenant_id", str(tenant), True)))
            assert orders(session) == ({tenant}, tenant)
            session.commit()
    return engine


def two_in_one(tenant):
    """Two settings in one SELECT list, on a connection in autocommit."""
    engine = create_engine(URL, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        told = text("SELECT set_config('app.tenant_id', :tenant, false), set_config('app.user', :name, false)")
        assert connection.execute(told, {"tenant": str(tenant), "name": f"user {tenant}"}).one() == (
            str(tenant), f"user {tenant}")
        for step in range(5):
            TOGETHER.wait(60)
            assert connection.scalar(text("select count(*) from orders")) == tenant
            assert connection.scalar(text("select current_setting('app.user')")) == f"user {tenant}"
            assert connection.scalars(select(Order.tenant).distinct()).all() == [tenant]
    return engine


def refused(tenant):
    """Rows of others are refused by the policy."""
    engine = create_engine(URL, pool_size=1, max_overflow=0)
    with Session(engine) as session:
        session.execute(text("SELECT set_config('app.tenant_id', :tenant, true)"), {"tenant": str(tenant)})
        try:
            session.execute(text("insert into orders values (:tenant, 'x')"), {"tenant": tenant + 1})
            raise AssertionError("the policy was not asked")
        except Exception as error:
            assert "row-level security" in str(error), error
            session.rollback()
    return engine


def look(what):
    print("look at", what, flush=True)
    input()


def each(step):
    """The engines with which all tenants did `step` at once."""

    def work(tenant):
        try:
            return step(tenant)
        except BaseException:
            # Nobody waits for who is gone.
            TOGETHER.abort()
            raise

    futures = [POOL.submit(work, tenant) for tenant in range(1, TENANTS + 1)]
    errors = [error for error in (future.exception() for future in futures) if error]
    # The one who failed, not those who waited for it.
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


with ThreadPoolExecutor(TENANTS) as POOL:
    for step in (for_the_session, for_the_transaction, two_in_one, refused):
        engines = each(step)
        look(step.__name__)
        for engine in engines:
            engine.dispose()
with create_engine(URL).connect() as nobody:
    assert tenant_of(nobody) in (None, "")
print("all done")
