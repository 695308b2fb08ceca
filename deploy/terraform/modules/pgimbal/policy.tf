# What pgimbal's token may do. The token has no other policy, not even Vault's `default`.

locals {
  token_rules = [
    { path = "auth/token/lookup-self", capabilities = ["read"] },
    { path = "auth/token/renew-self", capabilities = ["update"] },
    # After a login that replaces a token, which would otherwise live to its end for nobody.
    { path = "auth/token/revoke-self", capabilities = ["update"] },
  ]

  read_rules = [
    for name in distinct(concat(keys(local.static_roles), var.further_static_roles)) :
    { path = "${var.vault_mount}/static-creds/${name}", capabilities = ["read"] }
  ]

  dynamic_rules = [
    for name, role in local.dynamic_roles :
    { path = "${var.vault_mount}/creds/${name}", capabilities = ["read"] } if role.pgimbal_reads
  ]

  rotation_rules = [
    for name in keys(local.static_roles) :
    { path = "${var.vault_mount}/rotate-role/${name}", capabilities = ["update"] } if var.allow_rotation
  ]

  # Vault asks for `create` at the first write and for `update` at each later one.
  store_rules = var.store == null ? [] : [
    { path = "${var.store.mount}/data/${var.store.path}", capabilities = ["create", "read", "update"] },
    # A document that pgimbal cannot read is kept beside it, never overwritten.
    { path = "${var.store.mount}/data/${var.store.path}-unreadable-*", capabilities = ["create", "read", "update"] },
    # How many versions Vault keeps: two.
    { path = "${var.store.mount}/metadata/${var.store.path}", capabilities = ["create", "update"] },
    # `pgimbal check` says which of these rights is missing.
    { path = "sys/capabilities-self", capabilities = ["update"] },
  ]

  rules = concat(
    local.token_rules, local.read_rules, local.dynamic_rules, local.rotation_rules, local.store_rules
  )

  policy = join("\n", [
    for rule in local.rules : <<-END
      path "${rule.path}" {
        capabilities = ${jsonencode(rule.capabilities)}
      }
    END
  ])
}

resource "vault_policy" "pgimbal" {
  name   = var.name
  policy = local.policy
}

resource "vault_kubernetes_auth_backend_role" "pgimbal" {
  count = var.kubernetes_auth == null ? 0 : 1

  backend                          = var.kubernetes_auth.mount
  role_name                        = var.name
  bound_service_account_names      = [var.service_account]
  bound_service_account_namespaces = [var.namespace]
  audience                         = var.kubernetes_auth.audience
  token_policies                   = [vault_policy.pgimbal.name]
  token_no_default_policy          = true
  token_ttl                        = var.kubernetes_auth.token_ttl
  token_max_ttl                    = var.kubernetes_auth.token_max_ttl
}
