variable "name" {
  type        = string
  default     = "pgimbal"
  description = "Name of the policy and of the Kubernetes auth role in Vault."

  validation {
    condition     = can(regex("^\\w(?:[\\w.-]*\\w)?$", var.name))
    error_message = "The name may have letters, digits, \"_\", \".\" and \"-\", the last two not at its ends."
  }
}

# The database secrets engine.

variable "vault_mount" {
  type        = string
  default     = "database"
  description = "Path at which the database secrets engine is mounted."

  validation {
    condition     = can(regex("^\\w(?:[\\w./-]*\\w)?$", var.vault_mount))
    error_message = "The path has no \"/\" at its ends, and no space, \"*\" or \"+\"."
  }
}

variable "create_vault_mount" {
  type        = bool
  default     = true
  description = "Whether the module mounts the database secrets engine. False where it is mounted already."
}

variable "connection_name" {
  type        = string
  default     = "postgresql"
  description = "Name of Vault's connection to PostgreSQL."

  validation {
    condition     = can(regex("^\\w(?:[\\w.-]*\\w)?$", var.connection_name))
    error_message = "The name may have letters, digits, \"_\", \".\" and \"-\", the last two not at its ends."
  }
}

variable "connection" {
  type = object({
    hosts                   = list(string)
    username                = string
    database                = optional(string, "postgres")
    sslmode                 = optional(string, "verify-full")
    tls_ca                  = optional(string)
    password_authentication = optional(string, "scram-sha-256")
    max_open_connections    = optional(number, 2)
    verify                  = optional(bool, true)
  })
  default     = null
  description = <<-END
    How Vault reaches PostgreSQL to change passwords; null where the connection is there already.
    hosts: all nodes, "name" or "name:port". Vault takes the one that may be written to, so never name
    pgimbal here. username: the role that Vault logs in as, which needs CREATEROLE and, from
    PostgreSQL 16 on, each role of static_roles WITH ADMIN OPTION. tls_ca: PEM, from Vault 1.18 on;
    without it the authorities of Vault's own system. password_authentication: "scram-sha-256" sends
    a verifier, which a log of statements may show; "password" for servers before PostgreSQL 10.
    verify: whether Vault logs in before it accepts the connection.
  END

  validation {
    condition     = var.connection == null || try(length(var.connection.hosts) > 0, false)
    error_message = "hosts must name at least one node."
  }
  validation {
    condition = var.connection == null || alltrue([
      for host in try(var.connection.hosts, []) : can(regex("^(?:[\\w.-]+|\\[[0-9a-fA-F:.]+\\])(?::\\d{1,5})?$", host))
    ])
    error_message = "Each of hosts is \"name\" or \"name:port\"; an IPv6 address stands in brackets."
  }
  validation {
    condition = var.connection == null || contains(
      ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"], try(var.connection.sslmode, "")
    )
    error_message = "sslmode is one of libpq's: disable, allow, prefer, require, verify-ca, verify-full."
  }
  validation {
    condition = var.connection == null || contains(
      ["scram-sha-256", "password"], try(var.connection.password_authentication, "")
    )
    error_message = "password_authentication is \"scram-sha-256\" or \"password\"."
  }
}

variable "connection_password" {
  type        = string
  default     = null
  sensitive   = true
  description = <<-END
    First password of the role that Vault logs in as. It stands in the state: after the first apply
    say `vault write -f MOUNT/rotate-root/CONNECTION`, and only Vault knows the one that works.
  END
}

# Roles.

variable "static_roles" {
  type = list(object({
    name                = string
    username            = optional(string)
    rotation_period     = optional(number)
    rotation_schedule   = optional(string)
    rotation_window     = optional(number)
    rotation_statements = optional(list(string), [])
  }))
  default     = []
  description = <<-END
    Roles of PostgreSQL whose password Vault changes, and which pgimbal may read. Vault changes it at
    once when the role is made. username: the PostgreSQL role, when it is not the name.
    rotation_period: seconds, a day when neither it nor rotation_schedule is set. rotation_schedule:
    cron, with rotation_window in seconds.
  END

  validation {
    condition = alltrue([
      for role in var.static_roles : can(regex("^\\w(?:[\\w.@-]*\\w)?$", role.name))
    ])
    error_message = "A role's name may have letters, digits, \"_\", and within it \".\", \"-\" and \"@\"."
  }
  validation {
    condition     = length(distinct(var.static_roles[*].name)) == length(var.static_roles)
    error_message = "Two static roles have the same name."
  }
  validation {
    condition = length(distinct([
      for role in var.static_roles : coalesce(role.username, role.name)
    ])) == length(var.static_roles)
    error_message = "Two static roles have the same username: each rotation would undo the other's."
  }
  validation {
    condition = alltrue([
      for role in var.static_roles : role.rotation_period == null || role.rotation_schedule == null
    ])
    error_message = "A static role has rotation_period or rotation_schedule, not both."
  }
  validation {
    condition = alltrue([
      for role in var.static_roles : role.rotation_period == null || try(role.rotation_period >= 5, false)
    ])
    error_message = "rotation_period is at least 5 seconds."
  }
  validation {
    condition = alltrue([
      for role in var.static_roles : role.rotation_window == null || role.rotation_schedule != null
    ])
    error_message = "rotation_window belongs to a rotation_schedule."
  }
}

variable "further_static_roles" {
  type        = list(string)
  default     = []
  description = <<-END
    Names of static roles that are made elsewhere and that pgimbal may read too. A "*" at the end
    stands for any rest: ["*"] where pgimbal serves every role by `[users."*"]`.
  END

  validation {
    condition = alltrue([
      for name in var.further_static_roles : can(regex("^(?:\\w[\\w.@-]*)?\\*$|^\\w(?:[\\w.@-]*\\w)?$", name))
    ])
    error_message = "Each is the name of a role, or the beginning of one and \"*\"."
  }
}

variable "dynamic_roles" {
  type = list(object({
    name                  = string
    creation_statements   = list(string)
    revocation_statements = optional(list(string), [])
    renew_statements      = optional(list(string), [])
    rollback_statements   = optional(list(string), [])
    default_ttl           = optional(number, 3600)
    max_ttl               = optional(number, 86400)
    pgimbal_reads         = optional(bool, false)
  }))
  default     = []
  description = <<-END
    Roles for which Vault makes a user of PostgreSQL at each request. Applications ask Vault for them.
    default_ttl, max_ttl: seconds. pgimbal_reads: whether pgimbal may ask too; each time it does, Vault
    makes a user.
  END

  validation {
    condition = alltrue([
      for role in var.dynamic_roles : can(regex("^\\w(?:[\\w.@-]*\\w)?$", role.name))
    ])
    error_message = "A role's name may have letters, digits, \"_\", and within it \".\", \"-\" and \"@\"."
  }
  validation {
    condition     = length(distinct(var.dynamic_roles[*].name)) == length(var.dynamic_roles)
    error_message = "Two dynamic roles have the same name."
  }
  validation {
    condition     = alltrue([for role in var.dynamic_roles : length(role.creation_statements) > 0])
    error_message = "A dynamic role needs creation_statements."
  }
  validation {
    condition = alltrue([
      for role in var.dynamic_roles : role.default_ttl > 0 && role.default_ttl <= role.max_ttl
    ])
    error_message = "default_ttl is above 0 and at most max_ttl."
  }
}

# What pgimbal may do beyond reading.

variable "allow_rotation" {
  type        = bool
  default     = false
  description = <<-END
    Whether pgimbal may ask Vault to change the passwords of static_roles out of turn. It needs that
    only to heal a role whose password nobody knows any more, with an operator's consent.
  END
}

variable "store" {
  type = object({
    mount        = optional(string, "secret")
    path         = optional(string, "pgimbal")
    create_mount = optional(bool, false)
  })
  default     = null
  description = <<-END
    The secret of a KV engine, version 2, in which the replicas of pgimbal keep what they share:
    `store` of pgimbal with `kind = "vault"`. Null where they keep it elsewhere.
  END

  validation {
    condition = var.store == null || alltrue([
      for path in [try(var.store.mount, ""), try(var.store.path, "")] : can(regex("^\\w(?:[\\w./-]*\\w)?$", path))
    ])
    error_message = "mount and path have no \"/\" at their ends, and no space, \"*\" or \"+\"."
  }
}

# Kubernetes: how pgimbal logs in at Vault.

variable "namespace" {
  type        = string
  default     = "pgimbal"
  description = "Kubernetes namespace of pgimbal."

  validation {
    condition     = can(regex("^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "A namespace is a DNS label."
  }
}

variable "service_account" {
  type        = string
  default     = "pgimbal"
  description = "Service account of pgimbal, the only one that may log in."

  validation {
    condition     = can(regex("^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "A service account is named by a DNS name, and \"*\" is none."
  }
}

variable "kubernetes_auth" {
  type = object({
    mount         = optional(string, "kubernetes")
    audience      = optional(string, "vault")
    token_file    = optional(string, "/var/run/secrets/vault/token")
    token_ttl     = optional(number, 3600)
    token_max_ttl = optional(number, 86400)
  })
  default     = {}
  description = <<-END
    Login of pgimbal with its service account's token; null where it logs in otherwise. mount: path of
    the Kubernetes auth method, which must be enabled and configured. audience: the only one for which
    a token is taken; the projected token of the pod must be made for it. token_file: where that token
    is mounted. token_ttl, token_max_ttl: life of Vault's token in seconds, and when pgimbal has to
    show the service account's token again.
  END

  validation {
    condition     = var.kubernetes_auth == null || try(length(var.kubernetes_auth.audience) > 0, false)
    error_message = "Without an audience any token of the service account would do."
  }
  validation {
    condition = var.kubernetes_auth == null || try(
      var.kubernetes_auth.token_ttl >= 60 && var.kubernetes_auth.token_ttl <= var.kubernetes_auth.token_max_ttl, false
    )
    error_message = "token_ttl is at least 60 seconds and at most token_max_ttl."
  }
}

variable "vault_address" {
  type        = list(string)
  default     = []
  description = "URLs of Vault as pgimbal sees them, for the output pgimbal_toml."
}

# The hosts that applications use.

variable "service" {
  type        = string
  default     = "pgimbal"
  description = "Name of pgimbal's Service. The one for reads has \"-ro\" after it."

  validation {
    condition     = can(regex("^[a-z](?:[a-z0-9-]{0,58}[a-z0-9])?$", var.service))
    error_message = "A Service is named by a DNS label."
  }
}

variable "postgresql_host" {
  type        = string
  default     = null
  description = "Host for applications, where it is not the Service: a VM, a load balancer."
}

variable "postgresql_ro_host" {
  type        = string
  default     = null
  description = "Host for reads that may lag, where it is not the Service."
}

variable "postgresql_port" {
  type        = number
  default     = 5432
  description = "Port of both hosts."
}

variable "mysql_host" {
  type        = string
  default     = null
  description = "Handed on as it is: the platform's MySQL, which pgimbal has nothing to do with."
}

variable "redis_host" {
  type        = string
  default     = null
  description = "Handed on as it is: the platform's Redis, which pgimbal has nothing to do with."
}
