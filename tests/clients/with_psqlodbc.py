"""psqlODBC, by pyodbc: rollback of single statements by savepoints, results read by cursors.

Its arguments are the steps to take.
"""

import glob
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pyodbc

THREADS = 10
ROWS = 1000
DRIVER = sorted(glob.glob("/usr/lib/*/odbc/psqlodbcw.so"))[-1]
# 7.4-2: an error undoes its statement only. Rows come by cursors, 100 at a time.
OPTIONS = (
    f"Driver={DRIVER};Servername=127.0.0.1;Port={os.environ['PGIMBAL_PORT']};Database=app;"
    "UID=scram;PWD=scram-secret;Protocol=7.4-2;UseDeclareFetch=1;Fetch=100"
)

pyodbc.pooling = False


def value(connection, sql, *parameters):
    # A cursor of pyodbc's commits at the end of its `with`.
    with closing(connection.cursor()) as cursor:
        return cursor.execute(sql, *parameters).fetchone()[0]


def statement_rollback(thread, connection):
    connection.autocommit = False
    cursor = connection.cursor()
    cursor.execute(f"SET app.tenant_id='A{thread}'")
    cursor.execute("insert into odbc_t values (?, 'kept')", thread)
    cursor.execute(f"SET app.tenant_id='B{thread}'")
    cursor.execute("insert into odbc_t values (?, 'kept too')", thread)
    for sql in ("SELECT 1/0", "SET app.tenant_id='C'; SELECT 1/0", "SELECT set_config('app.tenant_id', 'C', false), 1/0"):
        try:
            cursor.execute(sql).fetchall()
            raise AssertionError("the error was lost")
        except pyodbc.Error as error:
            assert "division by zero" in str(error), error
    assert value(connection, "select current_setting('app.tenant_id')") == f"B{thread}"
    connection.commit()
    for _ in range(5):
        assert value(connection, "select current_setting('app.tenant_id')") == f"B{thread}"
        connection.commit()
    # A transaction that is rolled back takes its settings along.
    cursor.execute("SET app.tenant_id='D'")
    try:
        cursor.execute("insert into odbc_t values ('no number', 'x')")
        raise AssertionError("the error was lost")
    except pyodbc.Error as error:
        assert "invalid input syntax" in str(error), error
    assert value(connection, "select current_setting('app.tenant_id')") == "D"
    connection.rollback()
    assert value(connection, "select current_setting('app.tenant_id')") == f"B{thread}"
    texts = [row[0] for row in cursor.execute("select y from odbc_t where x = ? order by y", thread)]
    assert texts == ["kept", "kept too"], texts
    connection.commit()


def cursors_of_transactions(thread, connection):
    connection.autocommit = False
    cursor, other = connection.cursor(), connection.cursor()
    cursor.execute(f"select n from generate_series(1, {ROWS}) n")
    other.execute(f"select -n from generate_series(1, {ROWS}) n")
    for number in range(1, ROWS + 1):
        assert (cursor.fetchone()[0], other.fetchone()[0]) == (number, -number)
    cursor.close()
    other.close()
    # Left open at the commit, which psqlODBC may keep WITH HOLD.
    left = connection.cursor()
    left.execute(f"select n from generate_series(1, {ROWS}) n")
    assert left.fetchone()[0] == 1
    connection.commit()
    left.close()
    connection.commit()


def cursors_in_autocommit(thread, connection):
    connection.autocommit = True
    for _ in range(3):
        cursor = connection.cursor()
        rows = cursor.execute(f"select n, 't{thread}' from generate_series(1, {ROWS}) n").fetchall()
        assert [tuple(row) for row in rows] == [(n, f"t{thread}") for n in range(1, ROWS + 1)]
        rows = cursor.execute(f"select n from generate_series(1, {ROWS}) n where n > ?", thread).fetchall()
        assert [row[0] for row in rows] == list(range(thread + 1, ROWS + 1))
        cursor.close()
    few = connection.cursor()
    few.execute(f"select n from generate_series(1, {ROWS}) n")
    assert [row[0] for row in few.fetchmany(150)] == list(range(1, 151))
    few.close()
    failing = connection.cursor()
    try:
        failing.execute(f"select 1 / (n - 500) from generate_series(1, {ROWS}) n").fetchall()
        raise AssertionError("the error was lost")
    except pyodbc.Error as error:
        assert "division by zero" in str(error), error
    failing.close()
    assert value(connection, "select n from generate_series(1, 3) n") == 1


def look(what):
    print("look at", what, flush=True)
    input()


first = pyodbc.connect(OPTIONS, autocommit=True)
first.execute("create table odbc_t (x int, y text)")
connections = [pyodbc.connect(OPTIONS) for _ in range(THREADS)]
with ThreadPoolExecutor(THREADS) as pool:
    for step in [globals()[name] for name in sys.argv[1:]]:
        for future in [pool.submit(step, *pair) for pair in enumerate(connections)]:
            future.result()
        look(step.__name__)
assert value(first, "select coalesce(current_setting('app.tenant_id', true), '')") == ""
for connection in connections:
    connection.close()
print("all done")
