package main

import (
	"regexp"

	"github.com/hashicorp/terraform-plugin-framework-validators/int64validator"
	"github.com/hashicorp/terraform-plugin-framework-validators/listvalidator"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// The real provider takes slashes off a path's ends, and then sees a difference at each plan.
var mountPath = stringvalidator.RegexMatches(regexp.MustCompile(`^[^/].*[^/]$`), "no slash at its ends")

// hashicorp/vault 5, each resource as its page in the registry documents it.
var vaultResources = []resourceType{
	{"mount", schema.Schema{Attributes: map[string]schema.Attribute{
		"path":        schema.StringAttribute{Required: true, Validators: []validator.String{mountPath}},
		"type":        required(),
		"description": text(),
		"options":     schema.MapAttribute{Optional: true, ElementType: types.StringType},
		"accessor":    schema.StringAttribute{Computed: true},
	}}},
	{"policy", schema.Schema{Attributes: map[string]schema.Attribute{
		"name": required(), "policy": required(),
	}}},
	{"database_secret_backend_connection", schema.Schema{
		Attributes: map[string]schema.Attribute{
			"backend":           schema.StringAttribute{Required: true, Validators: []validator.String{mountPath}},
			"name":              required(),
			"allowed_roles":     texts(),
			"verify_connection": schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(true)},
		},
		Blocks: map[string]schema.Block{
			"postgresql": one(schema.NestedBlockObject{Attributes: map[string]schema.Attribute{
				"connection_url": text(),
				"username":       text(),
				"password":       schema.StringAttribute{Optional: true, Sensitive: true},
				"tls_ca":         text(),
				"max_open_connections": schema.Int64Attribute{
					Optional: true, Computed: true, Default: int64default.StaticInt64(2),
				},
				"password_authentication": schema.StringAttribute{
					Optional: true, Computed: true, Default: stringdefault.StaticString("password"),
					// Vault's own check; the provider hands it on.
					Validators: []validator.String{stringvalidator.OneOf("password", "scram-sha-256")},
				},
			}}),
		},
	}},
	{"database_secret_backend_static_role", schema.Schema{Attributes: map[string]schema.Attribute{
		"backend":  required(),
		"name":     required(),
		"db_name":  required(),
		"username": required(),
		"rotation_period": schema.Int64Attribute{Optional: true, Validators: []validator.Int64{
			int64validator.AtLeast(5),
			// Vault's own check; the provider hands both on.
			int64validator.ExactlyOneOf(sibling("rotation_schedule")),
		}},
		"rotation_schedule":   text(),
		"rotation_window":     number(),
		"rotation_statements": texts(),
	}}},
	{"database_secret_backend_role", schema.Schema{Attributes: map[string]schema.Attribute{
		"backend":               required(),
		"name":                  required(),
		"db_name":               required(),
		"creation_statements":   schema.ListAttribute{Required: true, ElementType: types.StringType},
		"revocation_statements": texts(),
		"rollback_statements":   texts(),
		"renew_statements":      texts(),
		"default_ttl":           number(),
		"max_ttl":               number(),
	}}},
	{"kubernetes_auth_backend_role", schema.Schema{Attributes: map[string]schema.Attribute{
		"role_name": required(),
		"backend": schema.StringAttribute{
			Optional: true, Computed: true, Default: stringdefault.StaticString("kubernetes"),
			Validators: []validator.String{mountPath},
		},
		"bound_service_account_names":      schema.SetAttribute{Required: true, ElementType: types.StringType},
		"bound_service_account_namespaces": schema.SetAttribute{Required: true, ElementType: types.StringType},
		"audience":                         text(),
		"token_policies":                   schema.SetAttribute{Optional: true, ElementType: types.StringType},
		"token_no_default_policy":          flag(),
		"token_ttl":                        number(),
		"token_max_ttl":                    number(),
	}}},
}

func texts() schema.ListAttribute {
	return schema.ListAttribute{Optional: true, ElementType: types.StringType}
}

// A block that may stand once.
func one(object schema.NestedBlockObject) schema.ListNestedBlock {
	return schema.ListNestedBlock{
		NestedObject: object,
		Validators:   []validator.List{listvalidator.SizeAtMost(1)},
	}
}

// A block that stands once.
func exactlyOne(object schema.NestedBlockObject) schema.ListNestedBlock {
	block := one(object)
	block.Validators = append(block.Validators, listvalidator.SizeAtLeast(1), listvalidator.IsRequired())
	return block
}
