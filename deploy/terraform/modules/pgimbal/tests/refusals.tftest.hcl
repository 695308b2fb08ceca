# What the module refuses before Vault or PostgreSQL would, or, worse, would not.

run "a_wildcard_among_the_roles" {
  command = plan
  variables {
    static_roles = [{ name = "app_*" }]
  }
  expect_failures = [var.static_roles]
}

run "a_wildcard_within_a_name" {
  command = plan
  variables {
    further_static_roles = ["a*b"]
  }
  expect_failures = [var.further_static_roles]
}

run "another_path_in_a_name" {
  command = plan
  variables {
    further_static_roles = ["../config/postgresql"]
  }
  expect_failures = [var.further_static_roles]
}

run "two_roles_for_one_user" {
  command = plan
  variables {
    static_roles = [{ name = "shop" }, { name = "shop-2", username = "shop" }]
  }
  expect_failures = [var.static_roles]
}

run "a_period_and_a_schedule" {
  command = plan
  variables {
    static_roles = [{ name = "shop", rotation_period = 60, rotation_schedule = "0 3 * * SUN" }]
  }
  expect_failures = [var.static_roles]
}

run "a_period_too_short_for_vault" {
  command = plan
  variables {
    static_roles = [{ name = "shop", rotation_period = 4 }]
  }
  expect_failures = [var.static_roles]
}

run "a_window_without_a_schedule" {
  command = plan
  variables {
    static_roles = [{ name = "shop", rotation_window = 60 }]
  }
  expect_failures = [var.static_roles]
}

run "no_audience" {
  command = plan
  variables {
    kubernetes_auth = { audience = "" }
  }
  expect_failures = [var.kubernetes_auth]
}

run "any_service_account" {
  command = plan
  variables {
    service_account = "*"
  }
  expect_failures = [var.service_account]
}

run "any_namespace" {
  command = plan
  variables {
    namespace = "*"
  }
  expect_failures = [var.namespace]
}

run "a_connection_without_nodes" {
  command = plan
  variables {
    connection = { hosts = [], username = "vault" }
  }
  expect_failures = [var.connection]
}

run "a_node_that_is_a_url" {
  command = plan
  variables {
    connection = { hosts = ["db/other?sslmode=disable"], username = "vault" }
  }
  expect_failures = [var.connection]
}

run "a_store_everywhere" {
  command = plan
  variables {
    store = { mount = "secret", path = "*" }
  }
  expect_failures = [var.store]
}

run "a_dynamic_role_that_outlives_itself" {
  command = plan
  variables {
    dynamic_roles = [{ name = "a", creation_statements = ["SELECT 1"], default_ttl = 7200, max_ttl = 3600 }]
  }
  expect_failures = [var.dynamic_roles]
}
