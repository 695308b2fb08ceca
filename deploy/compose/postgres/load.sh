#!/usr/bin/env bash
# Makes pgbench's tables in the schema of the user, and sends 50 transactions a second for
# LOAD_SECONDS.
set -euo pipefail

pgbench --initialize --quiet --scale=1
exec pgbench --no-vacuum --client=4 --rate=50 --time="$LOAD_SECONDS" --progress=10
