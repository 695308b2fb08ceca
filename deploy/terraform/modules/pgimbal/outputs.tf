# The shared host variables, by the names that a platform's stacks use.

output "postgresql_host" {
  value       = coalesce(var.postgresql_host, "${var.service}.${var.namespace}.svc")
  description = "DB_HOST of applications."
}

output "postgresql_ro_host" {
  value       = coalesce(var.postgresql_ro_host, "${var.service}-ro.${var.namespace}.svc")
  description = "Host for reads that may lag."
}

output "postgresql_port" {
  value       = var.postgresql_port
  description = "Port of both hosts."
}

output "mysql_host" {
  value       = var.mysql_host
  description = "The variable mysql_host as it is."
}

output "redis_host" {
  value       = var.redis_host
  description = "The variable redis_host as it is."
}

# What the configuration of pgimbal needs.

output "vault_mount" {
  value       = local.mount
  description = "Path of the database secrets engine."
}

output "policy_name" {
  value       = vault_policy.pgimbal.name
  description = "Policy for another login than the Kubernetes one, an AppRole's token_policies for example."
}

output "policy" {
  value       = local.policy
  description = "Text of that policy."
}

output "kubernetes_auth_role" {
  value       = one(vault_kubernetes_auth_backend_role.pgimbal[*].role_name)
  description = "Role of the Kubernetes login; null where there is none."
}

output "kubernetes_audience" {
  value       = try(var.kubernetes_auth.audience, null)
  description = "Audience for which the pod's projected token must be made."
}

output "pgimbal_toml" {
  # JSON's strings are strings of TOML too.
  value = join("\n", concat(
    ["[vaults.main]"],
    length(var.vault_address) == 0 ? [] : ["address = ${jsonencode(var.vault_address)}"],
    ["mount = ${jsonencode(var.vault_mount)}"],
    var.kubernetes_auth == null ? [] : [
      "login = \"kubernetes\"",
      "login_mount = ${jsonencode(var.kubernetes_auth.mount)}",
      "kubernetes_role = ${jsonencode(var.name)}",
      "kubernetes_jwt_file = ${jsonencode(var.kubernetes_auth.token_file)}",
    ],
    flatten([for name, role in local.static_roles : [
      "", "[users.${jsonencode(coalesce(role.username, name))}]", "vault_role = ${jsonencode(name)}"
    ]]),
    var.store == null ? [] : [
      "", "[store]", "kind = \"vault\"", "vault = \"main\"",
      "vault_mount = ${jsonencode(var.store.mount)}", "vault_path = ${jsonencode(var.store.path)}",
    ],
    [""]
  ))
  description = "Vault, users and store of pgimbal's configuration file."
}
