#!/usr/bin/env bash
# Makes the roles of compose.yaml on the new primary. The image of PostgreSQL runs this once, as the
# superuser, when the data directory has just been made; the server starts anew afterwards.
set -euo pipefail

psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="${POSTGRES_USER:-postgres}" \
    --dbname="$POSTGRES_DB" --set=replicator="$REPLICATOR_PASSWORD" \
    --set=vault="$VAULT_ROLE_PASSWORD" --set=probe="$PROBE_PASSWORD" \
    --set=load="$LOAD_PASSWORD" <<'SQL'
create role replicator login replication password :'replicator';

-- Vault gives it its password.
create role app login;
create schema app authorization app;

-- Vault logs in as this one, and changes that password.
create role vault login createrole password :'vault';
grant app to vault with admin option;

-- pgimbal asks every node as this one what it is.
create role pgimbal_probe login password :'probe';
grant pg_monitor to pgimbal_probe;

create role load login password :'load';
create schema load authorization load;
SQL

# The image lets everybody in by password, but nobody replicate from elsewhere.
echo 'host replication replicator all scram-sha-256' >>"$PGDATA/pg_hba.conf"
