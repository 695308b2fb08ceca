# A stack of one application, which takes the host of its database from the stack `shared`.

variable "shared_state" {
  type = object({
    backend = string
    config  = map(string)
  })
  description = "Where the state of the stack `shared` is: a backend, and its settings."
}

variable "image" {
  type        = string
  description = "Image of the application."
}

data "terraform_remote_state" "shared" {
  backend = var.shared_state.backend
  config  = var.shared_state.config
}

locals {
  shared = data.terraform_remote_state.shared.outputs
  name   = "shop"

  environment = {
    DB_HOST    = local.shared.postgresql_host
    DB_RO_HOST = local.shared.postgresql_ro_host
    DB_PORT    = tostring(local.shared.postgresql_port)
    DB_NAME    = local.name
    DB_USER    = local.name
    # A shared host that the platform does not have is no output.
    REDIS_HOST = try(local.shared.redis_host, null)
  }
}

resource "kubernetes_deployment_v1" "application" {
  metadata {
    name      = local.name
    namespace = local.name
    labels    = { "app.kubernetes.io/name" = local.name }
  }

  spec {
    replicas = 2

    selector {
      match_labels = { "app.kubernetes.io/name" = local.name }
    }

    template {
      metadata {
        labels = { "app.kubernetes.io/name" = local.name }
      }

      spec {
        container {
          name  = local.name
          image = var.image

          dynamic "env" {
            for_each = { for key, value in local.environment : key => value if value != null }

            content {
              name  = env.key
              value = env.value
            }
          }

          # From a Secret that follows Vault (External Secrets, Vault's operator). The pods need no
          # restart at a rotation: pgimbal goes on accepting the password that they started with.
          env {
            name = "DB_PASSWORD"

            value_from {
              secret_key_ref {
                name = "${local.name}-database"
                key  = "password"
              }
            }
          }
        }
      }
    }
  }
}
