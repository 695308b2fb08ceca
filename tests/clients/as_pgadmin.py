"""The texts with which pgAdmin 4 opens each of its connections, sent as it sends them.

It opens one for each server, database and query window, and keeps them all.
"""

import os

import psycopg

CONNINFO = f"host=127.0.0.1 port={os.environ['PGIMBAL_PORT']} user=scram password=scram-secret dbname=app"

# connection.py of pgAdmin's psycopg 3 driver since 9, before it, and with the encodings that its
# encoding.py finds.
OPENINGS = [
    "SET DateStyle=ISO; "
    "SET client_min_messages=notice; "
    f"SELECT set_config('bytea_output','hex',false) FROM {source}"
    " WHERE name = 'bytea_output'; "
    f"SET client_encoding='{encoding}';"
    for source in ("pg_show_all_settings()", "pg_settings")
    for encoding in ("UTF8", "utf-8", "UNICODE")
]

# What psycopg2 sent for it, and pgAdmin 3.
OPENINGS.append("\nSET DateStyle=ISO;\nSET client_min_messages=notice;\nSET bytea_output=escape;\nSET client_encoding='UNICODE';")

AFTERWARDS = (
    "SELECT version()",
    """
SELECT
    db.oid as did, db.datname, db.datallowconn,
    pg_encoding_to_char(db.encoding) AS serverencoding,
    has_database_privilege(db.oid, 'CREATE') as cancreate,
    datistemplate
FROM
    pg_catalog.pg_database db
WHERE db.datname = current_database()""",
    """
        SELECT
             gss_authenticated, encrypted
        FROM
            pg_catalog.pg_stat_gssapi
        WHERE pid = pg_backend_pid()""",
    """
        SELECT
            roles.oid as id, roles.rolname as name,
            roles.rolsuper as is_superuser,
            CASE WHEN roles.rolsuper THEN true ELSE roles.rolcreaterole END as
            can_create_role,
            CASE WHEN roles.rolsuper THEN true
            ELSE roles.rolcreatedb END as can_create_db,
            CASE WHEN 'pg_signal_backend'=ANY(ARRAY(WITH RECURSIVE cte AS (
            SELECT pg_roles.oid,pg_roles.rolname FROM pg_roles
                WHERE pg_roles.oid = roles.oid
            UNION ALL
            SELECT m.roleid,pgr.rolname FROM cte cte_1
                JOIN pg_auth_members m ON m.member = cte_1.oid
                JOIN pg_roles pgr ON pgr.oid = m.roleid)
            SELECT rolname  FROM cte)) THEN True
            ELSE False END as can_signal_backend
        FROM
            pg_catalog.pg_roles as roles
        WHERE
            rolname = current_user""",
)


def value(connection, sql):
    return connection.execute(sql).fetchone()[0]


def look(what):
    print("look at", what, flush=True)
    input()


# DateStyle and bytea_output differ from what pgAdmin wants, and client_min_messages from the default.
OPTIONS = "-c datestyle=German -c bytea_output=escape -c client_min_messages=error"
windows = []
for opening in OPENINGS * 2:
    for options in ("", OPTIONS):
        connection = psycopg.connect(CONNINFO, autocommit=True, options=options)
        connection.execute(opening)
        for sql in AFTERWARDS:
            connection.execute(sql).fetchall()
        # PostgreSQL keeps this one synonym as it was written.
        encoding = "UNICODE" if "UNICODE" in opening else "UTF8"
        windows.append((connection, "escape" if "escape" in opening else "hex", encoding))
for _ in range(3):
    for connection, bytea_output, encoding in windows:
        assert value(connection, "show bytea_output") == bytea_output
        assert value(connection, "show client_min_messages") == "notice"
        assert value(connection, "show datestyle").startswith("ISO")
        assert value(connection, "show client_encoding") == encoding
        assert connection.info.parameter_status("client_encoding") == encoding
        assert connection.info.parameter_status("DateStyle").startswith("ISO")
look("the openings")

# The role that a server's dialog names.
connections = [window[0] for window in windows]
for connection in connections[:4]:
    assert value(connection, "SELECT rolname from pg_roles WHERE rolname = 'reader'") == "reader"
    connection.execute("SET ROLE TO 'reader'")
for connection in connections:
    user = "reader" if connection in connections[:4] else "scram"
    assert value(connection, "select current_user") == user
look("a role")

with psycopg.connect(CONNINFO, autocommit=True, options=OPTIONS) as other:
    assert value(other, "show bytea_output") == "escape"
    assert value(other, "show datestyle").startswith("German")
    assert value(other, "select current_user") == "scram"
for connection in connections:
    connection.close()
print("all done")
