terraform {
  required_version = ">= 1.6"

  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.6.0, < 6.0.0"
    }
  }

  # Put your state here, encrypted: it has the first password of the role that Vault logs in as.
  # backend "s3" { … }
}

# The address and the token are read from VAULT_ADDR and VAULT_TOKEN.
provider "vault" {}
