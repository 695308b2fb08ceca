#!/usr/bin/env bash
# Copies the primary if the data directory is empty, and starts the replica of compose.yaml with the
# words given to it. One that was promoted starts as the primary that it is.
set -euo pipefail

if [[ ! -s $PGDATA/PG_VERSION ]]; then
    # What an interrupted copy has left.
    find "$PGDATA" -mindepth 1 -delete
    # PostgreSQL wants it for itself alone, and a new volume is open to all.
    chmod 0700 "$PGDATA"
    primary="host=$PRIMARY_HOST port=$PRIMARY_PORT user=replicator application_name=replica"
    PGPASSWORD=$REPLICATOR_PASSWORD pg_basebackup --pgdata="$PGDATA" --dbname="$primary" \
        --write-recovery-conf --checkpoint=fast --wal-method=stream
fi
exec "$@"
