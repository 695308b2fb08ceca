"""The database of a Django application that connects through pgimbal."""

import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("DB_HOST", "pgimbal.example"),
        "PORT": os.environ.get("DB_PORT", "6432"),
        "NAME": "django",
        "USER": "django",
        "PASSWORD": os.environ["DB_PASSWORD"],
        # A connection to pgimbal costs no server connection while nothing runs on it.
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
        # iterator() reads through a server-side cursor, as without a pooler.
        "DISABLE_SERVER_SIDE_CURSORS": False,
    }
}
