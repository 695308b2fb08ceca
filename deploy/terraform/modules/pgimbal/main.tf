locals {
  static_roles  = { for role in var.static_roles : role.name => role }
  dynamic_roles = { for role in var.dynamic_roles : role.name => role }

  # Of resources where the module makes them, so that Vault gets them in order.
  mount      = var.create_vault_mount ? vault_mount.database[0].path : var.vault_mount
  connection = var.connection == null ? var.connection_name : vault_database_secret_backend_connection.postgresql[0].name

  # Vault logs in at the node that may be written to: a password cannot be changed at a standby.
  connection_url = var.connection == null ? null : format(
    "postgresql://{{username}}:{{password}}@%s/%s?sslmode=%s&target_session_attrs=read-write",
    join(",", var.connection.hosts), var.connection.database, var.connection.sslmode
  )
}

resource "vault_mount" "database" {
  count = var.create_vault_mount ? 1 : 0

  path        = var.vault_mount
  type        = "database"
  description = "Passwords of PostgreSQL, read by pgimbal"
}

resource "vault_database_secret_backend_connection" "postgresql" {
  count = var.connection == null ? 0 : 1

  backend           = local.mount
  name              = var.connection_name
  allowed_roles     = distinct(concat(keys(local.static_roles), keys(local.dynamic_roles)))
  verify_connection = var.connection.verify

  postgresql {
    connection_url          = local.connection_url
    username                = var.connection.username
    password                = var.connection_password
    max_open_connections    = var.connection.max_open_connections
    password_authentication = var.connection.password_authentication
    tls_ca                  = var.connection.tls_ca
  }
}

resource "vault_database_secret_backend_static_role" "role" {
  for_each = local.static_roles

  backend  = local.mount
  name     = each.key
  db_name  = local.connection
  username = coalesce(each.value.username, each.key)
  rotation_period = (
    each.value.rotation_schedule != null ? null : coalesce(each.value.rotation_period, 86400)
  )
  rotation_schedule   = each.value.rotation_schedule
  rotation_window     = each.value.rotation_window
  rotation_statements = length(each.value.rotation_statements) == 0 ? null : each.value.rotation_statements
}

resource "vault_database_secret_backend_role" "role" {
  for_each = local.dynamic_roles

  backend               = local.mount
  name                  = each.key
  db_name               = local.connection
  creation_statements   = each.value.creation_statements
  revocation_statements = length(each.value.revocation_statements) == 0 ? null : each.value.revocation_statements
  renew_statements      = length(each.value.renew_statements) == 0 ? null : each.value.renew_statements
  rollback_statements   = length(each.value.rollback_statements) == 0 ? null : each.value.rollback_statements
  default_ttl           = each.value.default_ttl
  max_ttl               = each.value.max_ttl
}

resource "vault_mount" "store" {
  count = try(var.store.create_mount, false) ? 1 : 0

  path        = var.store.mount
  type        = "kv"
  options     = { version = "2" }
  description = "What the replicas of pgimbal share"
}
