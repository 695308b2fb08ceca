// A stand-in for the providers hashicorp/vault and hashicorp/kubernetes, for tests of
// deploy/terraform: they cannot be fetched where the tests run. It knows the resources that
// deploy/terraform uses, with those arguments that it uses, by the schemas that the real providers
// document: a misspelt argument, a wrong type or a missing one is refused as the real ones would.
// It never talks to a Vault or a Kubernetes: what is applied is only remembered in the state.
package main

import (
	"context"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
)

func main() {
	// OpenTofu starts the program by the name that the mirror gives it: terraform-provider-NAME_vN.
	program := strings.TrimPrefix(filepath.Base(os.Args[0]), "terraform-provider-")
	name, version, _ := strings.Cut(program, "_v")
	resources, known := map[string][]resourceType{
		"vault":      vaultResources,
		"kubernetes": kubernetesResources,
	}[name]
	if !known {
		log.Fatalf("%s is not the name of a provider that this program stands in for", os.Args[0])
	}
	serve := providerserver.ServeOpts{
		Address:         "registry.opentofu.org/hashicorp/" + name,
		ProtocolVersion: 5,
	}
	err := providerserver.Serve(context.Background(), func() provider.Provider {
		return &standIn{name: name, version: version, resources: resources}
	}, serve)
	if err != nil {
		log.Fatal(err)
	}
}
