package main

import (
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

type attributes = map[string]schema.Attribute
type blocks = map[string]schema.Block

func object(attributes attributes, blocks blocks) schema.NestedBlockObject {
	return schema.NestedBlockObject{Attributes: attributes, Blocks: blocks}
}

func labels() schema.MapAttribute {
	return schema.MapAttribute{Optional: true, ElementType: types.StringType}
}

// hashicorp/kubernetes 2, as its page in the registry documents it.
var kubernetesResources = []resourceType{
	{"deployment_v1", schema.Schema{
		Attributes: attributes{},
		Blocks: blocks{
			"metadata": exactlyOne(object(attributes{
				"name":      text(),
				"namespace": schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString("default")},
				"labels":    labels(),
			}, nil)),
			"spec": exactlyOne(object(
				// A text, so that it can be left to an autoscaler.
				attributes{"replicas": schema.StringAttribute{Optional: true}},
				blocks{
					"selector": one(object(attributes{"match_labels": labels()}, nil)),
					"template": exactlyOne(object(attributes{}, blocks{
						"metadata": exactlyOne(object(attributes{"labels": labels()}, nil)),
						"spec":     one(object(attributes{}, blocks{"container": container()})),
					})),
				},
			)),
		},
	}},
}

func container() schema.ListNestedBlock {
	key := func() schema.ListNestedBlock {
		return one(object(attributes{"name": text(), "key": text()}, nil))
	}
	return schema.ListNestedBlock{NestedObject: object(
		attributes{"name": required(), "image": text()},
		blocks{
			"env": schema.ListNestedBlock{NestedObject: object(
				attributes{"name": required(), "value": text()},
				blocks{"value_from": one(object(attributes{}, blocks{"secret_key_ref": key()}))},
			)},
		},
	)}
}
