#!/bin/sh
# Sets up the Vault of compose.yaml: a database secrets engine with the static role `app`, and an
# AppRole with which pgimbal may read that role's password, and nothing else. Run again, it changes
# no password.
set -eu

has() { # KIND MOUNT
    vault "$1" list -format=json | grep -q "\"$2/\""
}

has secrets database || vault secrets enable database
# Whichever of the nodes is the primary.
vault write database/config/app plugin_name=postgresql-database-plugin allowed_roles=app \
    connection_url="postgresql://{{username}}:{{password}}@$POSTGRES_NODES/app?sslmode=disable&target_session_attrs=read-write" \
    username=vault password="$VAULT_ROLE_PASSWORD"
vault write database/static-roles/app db_name=app username=app \
    rotation_period="$ROTATION_PERIOD"

vault policy write pgimbal - <<'END'
path "database/static-creds/app" { capabilities = ["read"] }
END
has auth approle || vault auth enable approle
vault write auth/approle/role/pgimbal token_policies=pgimbal token_period=1h
vault write auth/approle/role/pgimbal/role-id role_id=pgimbal
# Of this name once more, which Vault refuses while there is one. Tokens outlive it.
vault write auth/approle/role/pgimbal/secret-id/destroy secret_id="$SECRET_ID"
vault write auth/approle/role/pgimbal/custom-secret-id secret_id="$SECRET_ID" >/dev/null
