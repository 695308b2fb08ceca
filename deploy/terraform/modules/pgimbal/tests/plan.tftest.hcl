# `tofu test` in the module's folder. Everything is planned only: no Vault is asked.

variables {
  connection = {
    hosts    = ["db-0.internal:5432", "db-1.internal"]
    username = "vault"
  }
  connection_password = "first"
  static_roles = [
    { name = "shop" },
    { name = "reports", username = "report_user", rotation_schedule = "0 3 * * SUN", rotation_window = 7200 },
  ]
}

run "mounts_and_connects" {
  command = plan

  assert {
    condition     = vault_mount.database[0].path == "database" && vault_mount.database[0].type == "database"
    error_message = "The database secrets engine is not mounted at its usual path."
  }
  assert {
    condition = (
      vault_database_secret_backend_connection.postgresql[0].postgresql[0].connection_url ==
      "postgresql://{{username}}:{{password}}@db-0.internal:5432,db-1.internal/postgres?sslmode=verify-full&target_session_attrs=read-write"
    )
    error_message = "Vault would not reach the node that may be written to, with TLS."
  }
  assert {
    condition     = vault_database_secret_backend_connection.postgresql[0].allowed_roles == tolist(["reports", "shop"])
    error_message = "Other roles than those listed may use the connection."
  }
  assert {
    condition     = vault_database_secret_backend_connection.postgresql[0].postgresql[0].password_authentication == "scram-sha-256"
    error_message = "Passwords would reach PostgreSQL in clear text."
  }
}

run "rotates_static_roles" {
  command = plan

  assert {
    condition     = vault_database_secret_backend_static_role.role["shop"].rotation_period == 86400
    error_message = "A role without a period is rotated once a day."
  }
  assert {
    condition     = vault_database_secret_backend_static_role.role["shop"].username == "shop"
    error_message = "The username is the name when it is not given."
  }
  assert {
    condition     = vault_database_secret_backend_static_role.role["reports"].rotation_period == null
    error_message = "A role with a schedule has no period."
  }
  assert {
    condition     = vault_database_secret_backend_static_role.role["reports"].username == "report_user"
    error_message = "The username that was given is not used."
  }
}

run "grants_reading_and_no_more" {
  command = plan

  assert {
    condition     = output.policy == <<-END
      path "auth/token/lookup-self" {
        capabilities = ["read"]
      }

      path "auth/token/renew-self" {
        capabilities = ["update"]
      }

      path "auth/token/revoke-self" {
        capabilities = ["update"]
      }

      path "database/static-creds/reports" {
        capabilities = ["read"]
      }

      path "database/static-creds/shop" {
        capabilities = ["read"]
      }
    END
    error_message = "The policy is not what it should be."
  }
  assert {
    condition     = vault_policy.pgimbal.policy == output.policy
    error_message = "Vault gets another policy than the output says."
  }
}

run "grants_more_where_asked" {
  command = plan

  variables {
    vault_mount          = "team/db"
    static_roles         = [{ name = "shop" }]
    further_static_roles = ["legacy_*"]
    allow_rotation       = true
    store                = { mount = "kv", path = "team/pgimbal" }
    dynamic_roles = [
      { name = "analyst", creation_statements = ["CREATE ROLE \"{{name}}\""] },
      { name = "batch", creation_statements = ["CREATE ROLE \"{{name}}\""], pgimbal_reads = true },
    ]
  }

  assert {
    condition = toset(regexall("path \"([^\"]*)\"", output.policy)[*][0]) == toset([
      "auth/token/lookup-self", "auth/token/renew-self", "auth/token/revoke-self",
      "team/db/static-creds/shop", "team/db/static-creds/legacy_*", "team/db/creds/batch",
      "team/db/rotate-role/shop", "kv/data/team/pgimbal", "kv/data/team/pgimbal-unreadable-*",
      "kv/metadata/team/pgimbal", "sys/capabilities-self",
    ])
    error_message = "The policy names other paths than those asked for."
  }
  assert {
    condition     = length(vault_mount.store) == 0
    error_message = "The store's engine is mounted though nobody asked."
  }
}

run "binds_the_login" {
  command = plan

  variables {
    namespace       = "dbaas"
    service_account = "proxy"
    kubernetes_auth = { mount = "k8s", audience = "https://vault.internal" }
  }

  assert {
    condition = (
      vault_kubernetes_auth_backend_role.pgimbal[0].bound_service_account_names == toset(["proxy"]) &&
      vault_kubernetes_auth_backend_role.pgimbal[0].bound_service_account_namespaces == toset(["dbaas"]) &&
      vault_kubernetes_auth_backend_role.pgimbal[0].audience == "https://vault.internal"
    )
    error_message = "The login is not bound to the service account and the audience."
  }
  assert {
    condition = (
      vault_kubernetes_auth_backend_role.pgimbal[0].token_policies == toset(["pgimbal"]) &&
      vault_kubernetes_auth_backend_role.pgimbal[0].token_no_default_policy
    )
    error_message = "The token has another policy than pgimbal's."
  }
}

run "names_the_shared_hosts" {
  command = plan

  variables {
    namespace  = "dbaas"
    redis_host = "redis.internal"
  }

  assert {
    condition = (
      output.postgresql_host == "pgimbal.dbaas.svc" && output.postgresql_ro_host == "pgimbal-ro.dbaas.svc" &&
      output.mysql_host == null && output.redis_host == "redis.internal" && output.postgresql_port == 5432
    )
    error_message = "The shared host variables are not those of the Services."
  }
}

run "names_hosts_of_virtual_machines" {
  command = plan

  variables {
    postgresql_host    = "db.internal"
    postgresql_ro_host = "db-ro.internal"
    kubernetes_auth    = null
  }

  assert {
    condition     = output.postgresql_host == "db.internal" && output.postgresql_ro_host == "db-ro.internal"
    error_message = "The hosts that were given are not used."
  }
  assert {
    condition     = length(vault_kubernetes_auth_backend_role.pgimbal) == 0 && output.kubernetes_auth_role == null
    error_message = "A Kubernetes login is made though nobody logs in by it."
  }
}

run "uses_what_is_there" {
  command = plan

  variables {
    create_vault_mount = false
    connection         = null
    connection_name    = "main"
  }

  assert {
    condition = (
      length(vault_mount.database) == 0 && length(vault_database_secret_backend_connection.postgresql) == 0 &&
      vault_database_secret_backend_static_role.role["shop"].db_name == "main"
    )
    error_message = "The mount and the connection that are there are not used."
  }
}
