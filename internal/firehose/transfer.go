package firehose

import "reflect"

// The shapes of a destination resemble each other: what a member is called in
// the configuration, it is called in the update and in the description, but for
// the names below. So they are copied by name, and a member that the model adds
// is carried along without a line here.

// renamed are members of a configuration that another shape calls otherwise.
var renamed = map[string]string{
	"S3DestinationDescription":    "S3Configuration",
	"S3BackupDescription":         "S3BackupConfiguration",
	"VpcConfigurationDescription": "VpcConfiguration",
	"S3Update":                    "S3Configuration",
	"S3BackupUpdate":              "S3BackupConfiguration",
}

// merged are members that an update merges into what is stored, member by
// member; others replace it whole.
var merged = map[string]bool{
	"S3Update": true, "S3BackupUpdate": true,
	"DataFormatConversionConfiguration": true, "SchemaConfiguration": true,
	"DynamicPartitioningConfiguration": true,
	// The access key cannot be read back, so an update that only changes the
	// address keeps it.
	"EndpointConfiguration": true,
}

// copyShape copies the members that src has into dst, a pointer to a structure:
// deeply, and between types of equal form. Members of dst without a counterpart
// stay.
func copyShape(dst, src any) {
	copyStruct(reflect.ValueOf(dst).Elem(), reflect.Indirect(reflect.ValueOf(src)), false)
}

// mergeShape is copyShape for an update: members that it does not have stay as
// they are, at every depth at which the service merges.
func mergeShape(dst, update any) {
	copyStruct(reflect.ValueOf(dst).Elem(), reflect.Indirect(reflect.ValueOf(update)), true)
}

// reshape makes a T of a shape of equal form.
func reshape[T any](src any) *T {
	if v := reflect.ValueOf(src); v.Kind() == reflect.Pointer && v.IsNil() {
		return nil
	}
	dst := new(T)
	copyShape(dst, src)
	return dst
}

func copyStruct(dst, src reflect.Value, merge bool) {
	for i := range src.NumField() {
		from := src.Field(i)
		if from.IsZero() {
			continue
		}
		name := src.Type().Field(i).Name
		to := dst.FieldByName(name)
		if !to.IsValid() {
			to = dst.FieldByName(renamed[name])
		}
		if !to.IsValid() {
			to = dst.FieldByName(reverse(dst.Type(), name))
		}
		if to.IsValid() {
			copyValue(to, from, merge && merged[name])
		}
	}
}

// reverse is the name in type t of a configuration's member.
func reverse(t reflect.Type, member string) string {
	for other, name := range renamed {
		if name == member {
			if _, ok := t.FieldByName(other); ok {
				return other
			}
		}
	}
	return member
}

func copyValue(dst, src reflect.Value, merge bool) {
	switch src.Kind() {
	case reflect.Pointer:
		if src.Type().Elem().Kind() == reflect.Struct && merge && !dst.IsNil() {
			copyStruct(dst.Elem(), src.Elem(), true)
			return
		}
		next := reflect.New(dst.Type().Elem())
		copyValue(next.Elem(), src.Elem(), merge)
		dst.Set(next)
	case reflect.Struct:
		if src.Type() == dst.Type() && src.NumField() > 0 && !src.Type().Field(0).IsExported() {
			dst.Set(src) // a time
			return
		}
		copyStruct(dst, src, merge)
	case reflect.Slice:
		next := reflect.MakeSlice(dst.Type(), src.Len(), src.Len())
		for i := range src.Len() {
			copyValue(next.Index(i), src.Index(i), false)
		}
		dst.Set(next)
	case reflect.Map:
		next := reflect.MakeMapWithSize(dst.Type(), src.Len())
		for _, k := range src.MapKeys() {
			next.SetMapIndex(k, src.MapIndex(k))
		}
		dst.Set(next)
	default:
		dst.Set(src.Convert(dst.Type()))
	}
}
