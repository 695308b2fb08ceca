package main

import (
	"context"
	"maps"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	providerschema "github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/tfsdk"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

// A provider that is configured by its environment, as the real ones may be.
type standIn struct {
	name, version string
	resources     []resourceType
}

// The name of a resource's type without the provider's, and its schema.
type resourceType struct {
	name   string
	schema schema.Schema
}

func (p *standIn) Metadata(_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse) {
	resp.TypeName, resp.Version = p.name, p.version
}

func (p *standIn) Schema(_ context.Context, _ provider.SchemaRequest, resp *provider.SchemaResponse) {
	optional := providerschema.StringAttribute{Optional: true}
	if p.name == "vault" {
		resp.Schema.Attributes = map[string]providerschema.Attribute{
			"address": optional, "namespace": optional, "ca_cert_file": optional,
		}
	} else {
		resp.Schema.Attributes = map[string]providerschema.Attribute{
			"config_path": optional, "config_context": optional,
		}
	}
}

func (p *standIn) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {
}

func (p *standIn) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (p *standIn) Resources(context.Context) []func() resource.Resource {
	var made []func() resource.Resource
	for _, of := range p.resources {
		made = append(made, func() resource.Resource { return &remembered{of} })
	}
	return made
}

// A resource that is what was planned.
type remembered struct{ of resourceType }

func (r *remembered) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + r.of.name
}

func (r *remembered) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	resp.Schema = r.of.schema
	// OpenTofu asks several times at once.
	resp.Schema.Attributes = maps.Clone(r.of.schema.Attributes)
	resp.Schema.Attributes["id"] = schema.StringAttribute{
		Computed:      true,
		PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
	}
}

func (r *remembered) Create(_ context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	resp.State = known(req.Plan)
}

func (r *remembered) Read(context.Context, resource.ReadRequest, *resource.ReadResponse) {}

func (r *remembered) Update(_ context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	resp.State = known(req.Plan)
}

func (r *remembered) Delete(context.Context, resource.DeleteRequest, *resource.DeleteResponse) {}

// What is planned, with what the real resource would find out: an id, and nothing else.
func known(plan tfsdk.Plan) tfsdk.State {
	fill := func(at *tftypes.AttributePath, value tftypes.Value) (tftypes.Value, error) {
		switch {
		case value.IsKnown():
			return value, nil
		case at.Equal(tftypes.NewAttributePath().WithAttributeName("id")):
			return tftypes.NewValue(tftypes.String, "made-by-the-stand-in"), nil
		default:
			return tftypes.NewValue(value.Type(), nil), nil
		}
	}
	raw, err := tftypes.Transform(plan.Raw, fill)
	if err != nil {
		panic(err)
	}
	return tfsdk.State{Raw: raw, Schema: plan.Schema}
}

// The short forms by which the schemas are written down.

func required() schema.StringAttribute { return schema.StringAttribute{Required: true} }
func text() schema.StringAttribute     { return schema.StringAttribute{Optional: true} }
func number() schema.Int64Attribute    { return schema.Int64Attribute{Optional: true} }
func flag() schema.BoolAttribute       { return schema.BoolAttribute{Optional: true} }

func sibling(name string) path.Expression { return path.MatchRelative().AtParent().AtName(name) }
