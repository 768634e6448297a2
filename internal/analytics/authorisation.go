package analytics

import (
	"reflect"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/api"
)

// ResourceARN is the ARN of the application that a call is about and the account
// that owns it; "*" for calls about none in particular. It does not look whether
// the application is there.
func (s *Service) ResourceARN(call *api.Call, in api.Shape) (arn, owner string) {
	if call.Operation == nil || call.Operation.Resource == nil {
		return "*", call.Account
	}
	switch name, kind := call.Operation.Resource(in); kind {
	case api.ResourceApplication:
		return applicationName{call.Account, call.Region, name}.arn(), call.Account
	case api.ResourceARN:
		// DiscoverInputSchema names a source, which its role reads.
		if n, ok := parseARN(name); ok {
			return name, n.account
		}
	}
	return "*", call.Account
}

// ResourcePolicy finds none: applications have no policies of their own.
func (s *Service) ResourcePolicy(string) (policy string, ok bool) { return "", false }

// PassedRole is a role that a call hands to the service.
type PassedRole struct{ ARN, Account string }

// Passes tells what else a call asks for: whether it tags what it creates, and
// which roles it passes.
func (s *Service) Passes(call *api.Call, in api.Shape) (tags bool, roles []PassedRole) {
	if call.Operation != nil && call.Operation.Name == "CreateApplication" {
		list, _ := tagsOf(in)
		tags = len(list) > 0
	}
	for _, arn := range rolesOf(in) {
		account := ""
		if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
			account = parts[4]
		}
		roles = append(roles, PassedRole{arn, account})
	}
	return tags, roles
}

// ConditionValues are aws:ResourceTag/… of the application, and aws:RequestTag/…
// and aws:TagKeys of the tags that a call brings or takes.
func (s *Service) ConditionValues(call *api.Call, in api.Shape) map[string][]string {
	values := map[string][]string{}
	arn, _ := s.ResourceARN(call, in)
	if name, ok := parseARN(arn); ok {
		if a := s.registry.application(name); a != nil {
			for k, v := range a.record.Tags {
				values["aws:ResourceTag/"+k] = []string{v}
			}
		}
	}
	tags, keys := tagsOf(in)
	for k, v := range tags {
		values["aws:RequestTag/"+k] = []string{v}
		keys = append(keys, k)
	}
	if len(keys) > 0 {
		slices.Sort(keys)
		values["aws:TagKeys"] = keys
	}
	return values
}

// The inputs of both versions name these members alike, so they are found by
// name.

// tagsOf are the tags that a request brings, and the keys of those it takes.
func tagsOf(in api.Shape) (tags map[string]string, keys []string) {
	v := reflect.Indirect(reflect.ValueOf(in))
	if list := v.FieldByName("Tags"); list.IsValid() {
		tags = map[string]string{}
		for i := range list.Len() {
			key, _ := list.Index(i).FieldByName("Key").Interface().(*string)
			value, _ := list.Index(i).FieldByName("Value").Interface().(*string)
			tags[api.Val(key)] = api.Val(value)
		}
	}
	if list := v.FieldByName("TagKeys"); list.IsValid() {
		keys, _ = list.Interface().([]string)
		keys = slices.Clone(keys)
	}
	return tags, keys
}

// rolesOf are the roles that a request names, wherever in it, each once.
func rolesOf(in api.Shape) []string {
	var roles []string
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				walk(v.Elem())
			}
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.Struct {
				for i := range v.Len() {
					walk(v.Index(i))
				}
			}
		case reflect.Struct:
			for i := range v.NumField() {
				f := v.Field(i)
				switch v.Type().Field(i).Name {
				case "RoleARN", "RoleARNUpdate", "ReferenceRoleARN", "ReferenceRoleARNUpdate", "ServiceExecutionRole", "ServiceExecutionRoleUpdate":
					if role, ok := f.Interface().(*string); ok && role != nil && !slices.Contains(roles, *role) {
						roles = append(roles, *role)
					}
				default:
					if v.Type().PkgPath() != "time" {
						walk(f)
					}
				}
			}
		}
	}
	walk(reflect.ValueOf(in))
	return roles
}
