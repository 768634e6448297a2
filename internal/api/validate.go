package api

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// maxFailures is how many failures a reply lists and counts.
	maxFailures = 10
	// maxRendered bounds the echo of a value; longer ones are left out, in the
	// form that newer replies of the service use for blobs.
	maxRendered = 16 << 10
)

// NoLimit stands for an absent bound of a length.
const NoLimit = -1

// Validator collects what breaks the model's constraints. The zero value is
// ready to use.
type Validator struct {
	path []step
	text []byte
	n    int
}

// step is a member on the way to the one being checked.
type step struct {
	name string
	item int // 1-based position in a list, 0 for a structure
}

// Enter descends into the structure that member name holds.
func (v *Validator) Enter(name string) { v.path = append(v.path, step{name, 0}) }

// EnterItem descends into item i, counted from 0, of the list that member name holds.
func (v *Validator) EnterItem(name string, i int) { v.path = append(v.path, step{name, i + 1}) }

// Leave returns from the latest Enter or EnterItem.
func (v *Validator) Leave() { v.path = v.path[:len(v.path)-1] }

// Failures is how many constraints are broken so far, at most ten.
func (v *Validator) Failures() int { return v.n }

// Full reports that further failures would not be listed, so that the check of a
// long list can end early.
func (v *Validator) Full() bool { return v.n >= maxFailures }

// Message is the text of the reply.
func (v *Validator) Message() string {
	s := "s"
	if v.n == 1 {
		s = ""
	}
	return strconv.Itoa(v.n) + " validation error" + s + " detected: " + string(v.text)
}

// Err is nil when nothing failed, else an Error with the text of the reply.
func (v *Validator) Err() error {
	if v.n == 0 {
		return nil
	}
	return &FrontError{Code: CodeValidation, Message: v.Message(), Status: http.StatusBadRequest}
}

// open starts a failure up to the constraint's text; false when the list is full.
func (v *Validator) open(name string, value value) bool {
	if v.n >= maxFailures {
		return false
	}
	if v.n > 0 {
		v.text = append(v.text, "; "...)
	}
	v.n++
	v.text = append(v.text, "Value "...)
	switch {
	case value.null:
		v.text = append(v.text, "null "...)
	case value.shown && len(value.text) <= maxRendered:
		v.text = append(v.text, '\'')
		v.text = append(v.text, value.text...)
		v.text = append(v.text, "' "...)
	}
	v.text = append(v.text, "at '"...)
	for _, s := range v.path {
		v.text = append(v.text, s.name...)
		v.text = append(v.text, '.')
		if s.item > 0 {
			v.text = strconv.AppendInt(v.text, int64(s.item), 10)
			v.text = append(v.text, ".member."...)
		}
	}
	v.text = append(v.text, name...)
	v.text = append(v.text, "' failed to satisfy constraint: "...)
	return true
}

// value is a rendered value in a failure's text.
type value struct {
	text  string
	shown bool
	null  bool
}

func shown(s string) value { return value{text: s, shown: true} }

func (v *Validator) fail(name string, val value, rule string) {
	if v.open(name, val) {
		v.text = append(v.text, rule...)
	}
}

func (v *Validator) failBound(name string, val value, rule string, bound int64) {
	if v.open(name, val) {
		v.text = append(v.text, rule...)
		v.text = strconv.AppendInt(v.text, bound, 10)
	}
}

// The texts of the constraints, in the words of the service.
const (
	ruleRequired  = "Member must not be null"
	ruleMinLength = "Member must have length greater than or equal to "
	ruleMaxLength = "Member must have length less than or equal to "
	ruleMin       = "Member must have value greater than or equal to "
	ruleMax       = "Member must have value less than or equal to "
	rulePattern   = "Member must satisfy regular expression pattern: "
	ruleEnum      = "Member must satisfy enum value set: "
)

// Required adds the failure of a required member that is absent.
func (v *Validator) Required(name string) { v.fail(name, value{null: true}, ruleRequired) }

func (v *Validator) length(name string, val func() value, n, min, max int) {
	if min >= 0 && n < min {
		v.failBound(name, val(), ruleMinLength, int64(min))
	}
	if max >= 0 && n > max {
		v.failBound(name, val(), ruleMaxLength, int64(max))
	}
}

// Length checks a string's length in code points. A bound may be NoLimit.
func (v *Validator) Length(name, s string, min, max int) {
	// Code points are never more than bytes, so most strings need no counting.
	if (max < 0 || len(s) <= max) && (min <= 0 || min == 1 && len(s) > 0) {
		return
	}
	v.length(name, func() value { return shown(s) }, utf8.RuneCountInString(s), min, max)
}

// BlobLength checks a length in bytes. The bytes are not shown.
func (v *Validator) BlobLength(name string, n, min, max int) {
	if n < min || max >= 0 && n > max {
		v.length(name, func() value { return value{} }, n, min, max)
	}
}

// ListLength checks the length of a list of structures, which is not shown.
func (v *Validator) ListLength(name string, n, min, max int) { v.BlobLength(name, n, min, max) }

// Min checks a number's lower bound.
func (v *Validator) Min(name string, n, min int64) {
	if n < min {
		v.failBound(name, shown(strconv.FormatInt(n, 10)), ruleMin, min)
	}
}

// Max checks a number's upper bound.
func (v *Validator) Max(name string, n, max int64) {
	if n > max {
		v.failBound(name, shown(strconv.FormatInt(n, 10)), ruleMax, max)
	}
}

// MinFloat checks a floating-point number's lower bound.
func (v *Validator) MinFloat(name string, n, min float64) {
	if !(n >= min) {
		v.fail(name, shown(formatFloat(n)), ruleMin+formatFloat(min))
	}
}

// MaxFloat checks a floating-point number's upper bound.
func (v *Validator) MaxFloat(name string, n, max float64) {
	if !(n <= max) {
		v.fail(name, shown(formatFloat(n)), ruleMax+formatFloat(max))
	}
}

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// Pattern checks a string against a regular expression.
func (v *Validator) Pattern(name, s string, p *Pattern) {
	if !p.Match(s) {
		v.fail(name, shown(s), rulePattern+p.Text)
	}
}

// Enum is the set of values of an enumeration, in the order in which refusals
// list them.
type Enum []string

func (e Enum) has(s string) bool { return slices.Contains(e, s) }

// Enum checks that a string is one of an enumeration's values.
func (v *Validator) Enum(name, s string, e Enum) {
	if !e.has(s) {
		v.fail(name, shown(s), ruleEnum+"["+strings.Join(e, ", ")+"]")
	}
}

// Rule is what each item of a list or each key or value of a map must satisfy.
// The service reports it once for the whole collection.
type Rule struct {
	Min, Max int // length in code points, or NoLimit
	Pattern  *Pattern
	Enum     Enum
}

func (r *Rule) holds(s string) bool {
	if r.Min > 0 || r.Max >= 0 {
		n := len(s)
		if n > r.Max || n < r.Min || r.Min > 1 {
			n = utf8.RuneCountInString(s)
		}
		if n < r.Min || r.Max >= 0 && n > r.Max {
			return false
		}
	}
	return (r.Pattern == nil || r.Pattern.Match(s)) && (r.Enum == nil || r.Enum.has(s))
}

// text lists the rule's parts the way the service does: longest bound first.
func (r *Rule) text() string {
	var parts []string
	if r.Max >= 0 {
		parts = append(parts, ruleMaxLength+strconv.Itoa(r.Max))
	}
	if r.Min >= 0 {
		parts = append(parts, ruleMinLength+strconv.Itoa(r.Min))
	}
	if r.Pattern != nil {
		parts = append(parts, rulePattern+r.Pattern.Text)
	}
	if r.Enum != nil {
		parts = append(parts, ruleEnum+"["+strings.Join(r.Enum, ", ")+"]")
	}
	return " must satisfy constraint: [" + strings.Join(parts, ", ") + "]"
}

// ValidateStrings checks the length of a list of strings and its items. rule may
// be nil.
func ValidateStrings[T ~string](v *Validator, name string, list []T, min, max int, rule *Rule) {
	val := func() value { return renderStrings(list) }
	v.length(name, val, len(list), min, max)
	if rule == nil {
		return
	}
	for _, s := range list {
		if !rule.holds(string(s)) {
			v.fail(name, val(), "Member"+rule.text())
			return
		}
	}
}

// ValidateNumbers checks the length of a list of numbers and that each of them
// lies between low and high.
func ValidateNumbers[T ~int32 | ~int64](v *Validator, name string, list []T, min, max int, low, high int64) {
	v.ListLength(name, len(list), min, max)
	for i, n := range list {
		if v.Full() {
			return
		}
		if n := int64(n); n < low || n > high {
			item := name + "." + strconv.Itoa(i+1) + ".member"
			v.Min(item, n, low)
			v.Max(item, n, high)
		}
	}
}

// ValidateMap checks the size of a map of strings, its keys and its values.
// Either rule may be nil.
func ValidateMap[K, T ~string](v *Validator, name string, m map[K]T, min, max int, key, val *Rule) {
	render := func() value { return renderMap(m) }
	v.length(name, render, len(m), min, max)
	if key != nil {
		for k := range m {
			if !key.holds(string(k)) {
				v.fail(name, render(), "Map keys"+key.text())
				break
			}
		}
	}
	if val != nil {
		for _, s := range m {
			if !val.holds(string(s)) {
				v.fail(name, render(), "Map value"+val.text())
				break
			}
		}
	}
}

func renderStrings[T ~string](list []T) value {
	b := []byte{'['}
	for i, s := range list {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, s...)
		if len(b) > maxRendered {
			return value{}
		}
	}
	return shown(string(append(b, ']')))
}

func renderMap[K, T ~string](m map[K]T) value {
	b := []byte{'{'}
	for i, k := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, k...)
		b = append(b, '=')
		b = append(b, m[k]...)
		if len(b) > maxRendered {
			return value{}
		}
	}
	return shown(string(append(b, '}')))
}
