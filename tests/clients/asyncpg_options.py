"""How asyncpg connects to the pgimbal that a test has started."""

import os


def options(user):
    return {
        "host": "127.0.0.1",
        "port": int(os.environ["PGIMBAL_PORT"]),
        "user": user,
        "password": f"{user}-secret",
        "database": "app",
        "ssl": False,
    }
