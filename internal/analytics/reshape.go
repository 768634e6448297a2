package analytics

import "reflect"

// reshape makes a T of a shape of the other version: members of the same name
// have the same meaning in both. What T does not have is left out; nil stays nil.
func reshape[T any](src any) *T {
	v := reflect.ValueOf(src)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	dst := new(T)
	copyValue(reflect.ValueOf(dst).Elem(), v)
	return dst
}

// reshapeAll is reshape for lists.
func reshapeAll[T, S any](src []S) []T {
	if src == nil {
		return nil
	}
	dst := make([]T, len(src))
	for i := range src {
		copyValue(reflect.ValueOf(&dst[i]).Elem(), reflect.ValueOf(&src[i]).Elem())
	}
	return dst
}

func copyValue(dst, src reflect.Value) {
	switch {
	case src.Type() == dst.Type():
		dst.Set(src)
	case src.Kind() == reflect.Pointer:
		if !src.IsNil() {
			dst.Set(reflect.New(dst.Type().Elem()))
			copyValue(dst.Elem(), src.Elem())
		}
	case src.Kind() == reflect.Slice:
		if !src.IsNil() {
			dst.Set(reflect.MakeSlice(dst.Type(), src.Len(), src.Len()))
			for i := range src.Len() {
				copyValue(dst.Index(i), src.Index(i))
			}
		}
	case src.Kind() == reflect.Struct:
		for i := range src.NumField() {
			if to := dst.FieldByName(src.Type().Field(i).Name); to.IsValid() {
				copyValue(to, src.Field(i))
			}
		}
	default:
		dst.Set(src.Convert(dst.Type())) // names of enumerations
	}
}
