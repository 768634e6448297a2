package api

import "time"

// Decoder reads one value after another from a message. Generated types drive
// it: they ask for what the model says comes next and the codec answers with
// what is there.
//
// Errors stick. A value of the wrong type is skipped, remembered if it is the
// first of its kind, and reading goes on; a message that breaks its syntax makes
// every later call answer as at the end. Callers therefore test nothing until
// the end, and a syntax error anywhere wins over an earlier wrong type.
//
// The Begin methods answer false, with nothing to close, for null and for a
// value of the wrong type. After a true answer the matching Next method is
// called until it answers false, which also leaves the container.
type Decoder interface {
	// Null consumes a null if one is next and reports whether it did.
	Null() bool
	// BeginStruct enters a structure.
	BeginStruct() bool
	// NextMember gives the name of the structure's next member, valid until the
	// next call of any method. The member's value must be read or skipped.
	NextMember() (name []byte, ok bool)
	// BeginList enters a list.
	BeginList() bool
	// NextItem reports whether an item follows, which must be read or skipped.
	NextItem() bool
	// BeginMap enters a map from strings.
	BeginMap() bool
	// NextKey gives the map's next key. Its value must be read or skipped.
	NextKey() (key string, ok bool)

	// The getters answer false for null and for a value of the wrong type.

	String() (string, bool)
	Int32() (int32, bool) // fractions dropped, clamped to the type's range
	Int64() (int64, bool) // likewise
	Float64() (float64, bool)
	Bool() (bool, bool)
	Time() (time.Time, bool) // UTC, whole milliseconds
	// Blob gives bytes that are not nil, also when there are none.
	Blob() ([]byte, bool)

	// Skip passes over the next value, whatever it is.
	Skip()
	// Err is the *SyntaxError if there is one, else the first *TypeError.
	Err() error
}

// Encoder writes one value after another. It cannot fail: strings that are not
// UTF-8 are written with replacement characters.
type Encoder interface {
	BeginStruct()
	// Member names the member whose value follows.
	Member(name string)
	EndStruct()
	BeginList(n int) // exactly n values follow
	EndList()
	BeginMap(n int) // exactly n pairs of Key and a value follow
	Key(key string)
	EndMap()

	String(s string)
	Int64(n int64)
	Float64(f float64)
	Bool(b bool)
	Time(t time.Time) // to the millisecond
	Blob(b []byte)
	// Null is an item of a list that has no value.
	Null()
}

// Shape is implemented by a pointer to every generated structure.
type Shape interface {
	// DecodeFrom reads the structure's members. Unknown members are skipped, a
	// repeated member's last value counts. The error is the decoder's.
	DecodeFrom(d Decoder) error
	// EncodeTo writes the members that are present.
	EncodeTo(e Encoder)
	// Validate adds a failure for each member that breaks a modelled constraint.
	Validate(v *Validator)
}

// RequestAlias marks inputs whose strings and blobs may point into the request's
// buffer instead of owning their memory. They are valid until the handler
// returns.
type RequestAlias interface{ AliasesRequest() }

// DecodeString reads an optional string or enumeration value.
func DecodeString[T ~string](d Decoder) *T {
	if s, ok := d.String(); ok {
		v := T(s)
		return &v
	}
	return nil
}

// DecodeInt32 reads an optional 32-bit integer.
func DecodeInt32(d Decoder) *int32 {
	if v, ok := d.Int32(); ok {
		return &v
	}
	return nil
}

// DecodeInt64 reads an optional 64-bit integer.
func DecodeInt64(d Decoder) *int64 {
	if v, ok := d.Int64(); ok {
		return &v
	}
	return nil
}

// DecodeFloat64 reads an optional floating-point number.
func DecodeFloat64(d Decoder) *float64 {
	if v, ok := d.Float64(); ok {
		return &v
	}
	return nil
}

// DecodeBool reads an optional boolean.
func DecodeBool(d Decoder) *bool {
	if v, ok := d.Bool(); ok {
		return &v
	}
	return nil
}

// DecodeTime reads an optional point in time.
func DecodeTime(d Decoder) *time.Time {
	if v, ok := d.Time(); ok {
		return &v
	}
	return nil
}

// DecodeBlob reads optional bytes; nil means absent.
func DecodeBlob(d Decoder) []byte {
	v, _ := d.Blob()
	return v
}

// Ptr returns a pointer to v.
func Ptr[T any](v T) *T { return new(v) }

// Val returns what p points to, or the zero value for nil.
func Val[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
