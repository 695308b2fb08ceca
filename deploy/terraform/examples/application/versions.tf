terraform {
  required_version = ">= 1.6"

  required_providers {
    kubernetes = {
      source  = "hashicorp/kubernetes"
      version = ">= 2.20.0, < 4.0.0"
    }
  }
}

# The cluster is read from KUBE_CONFIG_PATH.
provider "kubernetes" {}
