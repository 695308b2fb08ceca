terraform {
  required_version = ">= 1.6"

  required_providers {
    vault = {
      source = "hashicorp/vault"
      # 4.6 is the first with password_authentication. It sends the connection's password only when
      # that changes, so that a password which Vault has rotated is not overwritten.
      version = ">= 4.6.0, < 6.0.0"
    }
  }
}
