# What several stacks of a platform share: how Vault changes passwords, what pgimbal may do there, and
# the hosts that applications connect to.

variable "postgresql_nodes" {
  type        = list(string)
  description = "All nodes of the PostgreSQL cluster."
}

variable "postgresql_ca" {
  type        = string
  default     = null
  description = "Authority of the nodes' certificates, PEM."
}

variable "vault_password" {
  type        = string
  sensitive   = true
  description = "First password of the PostgreSQL role `vault`."
}

variable "vault_address" {
  type        = list(string)
  description = "URLs of Vault as pgimbal sees them."
}

variable "redis_host" {
  type        = string
  default     = null
  description = "The platform's Redis."
}

module "pgimbal" {
  source = "../../modules/pgimbal"

  namespace     = "pgimbal"
  vault_address = var.vault_address

  connection = {
    hosts    = var.postgresql_nodes
    username = "vault"
    tls_ca   = var.postgresql_ca
  }
  connection_password = var.vault_password

  static_roles = [
    { name = "shop" },
    # Sundays between 3 and 5 o'clock.
    { name = "reports", rotation_schedule = "0 3 * * SUN", rotation_window = 7200 },
  ]

  # People who look at the data: each gets a user of their own for an hour.
  dynamic_roles = [{
    name = "analyst"
    creation_statements = [
      "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE pg_read_all_data;",
    ]
  }]

  store      = { mount = "secret", path = "pgimbal", create_mount = true }
  redis_host = var.redis_host
}

output "postgresql_host" {
  value = module.pgimbal.postgresql_host
}

output "postgresql_ro_host" {
  value = module.pgimbal.postgresql_ro_host
}

output "postgresql_port" {
  value = module.pgimbal.postgresql_port
}

output "mysql_host" {
  value = module.pgimbal.mysql_host
}

output "redis_host" {
  value = module.pgimbal.redis_host
}

output "pgimbal_toml" {
  value = module.pgimbal.pgimbal_toml
}
