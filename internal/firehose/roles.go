package firehose

import (
	"reflect"
	"slices"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// rolesOf are the roles that a request names, wherever in it.
func rolesOf(in api.Shape) []string {
	var roles []string
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Struct:
			for i := range v.NumField() {
				f := v.Type().Field(i)
				if !f.IsExported() {
					return // a time
				}
				if role, ok := v.Field(i).Interface().(*string); ok {
					if f.Name == "RoleARN" && role != nil && !slices.Contains(roles, *role) {
						roles = append(roles, *role)
					}
					continue
				}
				if p, ok := v.Field(i).Interface().(*firehose.ProcessingConfiguration); ok && p != nil {
					for i := range p.Processors {
						for _, q := range p.Processors[i].Parameters {
							if *q.ParameterName == firehose.ProcessorParameterNameRoleArn && !slices.Contains(roles, *q.ParameterValue) {
								roles = append(roles, *q.ParameterValue)
							}
						}
					}
					continue
				}
				walk(v.Field(i))
			}
		case reflect.Slice:
			for i := range v.Len() {
				walk(v.Index(i))
			}
		}
	}
	walk(reflect.ValueOf(in))
	return roles
}
