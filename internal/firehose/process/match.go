package process

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/itchyny/gojq"
)

// The interpreter's own functions of regular expressions take time that grows
// with the square of the matches, and keep every expression they have seen; both
// are in the hands of whoever writes records. So these take their place.

const (
	maxMatches     = 100_000 // of one call
	maxExpressions = 256     // kept compiled
)

// matchers are the functions in terms of those below. A definition sees those
// before it, so the ones with flags come first.
const matchers = `
def match($re; $flags): _guard_match($re; $flags)[];
def match($re): if $re | type == "array" then match($re[0]; $re[1]) else match($re; null) end;
def test($re; $flags): _guard_test($re; $flags);
def test($re): if $re | type == "array" then test($re[0]; $re[1]) else test($re; null) end;
def capture($re; $flags): _guard_pieces($re; $flags).captures[];
def capture($re): if $re | type == "array" then capture($re[0]; $re[1]) else capture($re; null) end;
def scan($re; $flags): match($re; $flags + "g") | if .captures == [] then .string else [.captures[].string] end;
def scan($re): scan($re; null);
def splits($re; $flags): _guard_pieces($re; $flags + "g").between[];
def splits($re): splits($re; null);
def split($re; $flags): [splits($re; $flags)];
def sub($re; text; $flags): _guard_pieces($re; $flags) as $pieces |
  if $pieces.captures == [] then . else
    [$pieces.captures[] | [text]] as $texts | _guard_weave($pieces.between; $texts)[]
  end;
def sub($re; text): sub($re; text; null);
def gsub($re; text; $flags): sub($re; text; $flags + "g");
def gsub($re; text): sub($re; text; "g");
`

var expressions struct {
	mu       sync.Mutex
	compiled map[[2]string]*regexp.Regexp
}

func expression(re, flags string) (*regexp.Regexp, error) {
	key := [2]string{re, flags}
	expressions.mu.Lock()
	r := expressions.compiled[key]
	expressions.mu.Unlock()
	if r != nil {
		return r, nil
	}
	options, longest := "", false
	for _, f := range flags {
		switch f {
		case 'g', 'n':
		case 'i':
			options += "i"
		case 's', 'p':
			options += "s"
		case 'l':
			longest = true
		default:
			return nil, fmt.Errorf("%s is not a valid modifier string", flags)
		}
	}
	text := re
	if options != "" {
		text = "(?" + options + ")" + re
	}
	r, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("invalid regular expression %q: %w", clip(re), err)
	}
	if longest {
		r.Longest()
	}
	expressions.mu.Lock()
	defer expressions.mu.Unlock()
	if expressions.compiled == nil || len(expressions.compiled) >= maxExpressions {
		expressions.compiled = map[[2]string]*regexp.Regexp{}
	}
	expressions.compiled[key] = r
	return r, nil
}

// matches finds where an expression matches a text: indexes as of package regexp.
func matches(name string, v any, args []any, all bool) (text string, r *regexp.Regexp, found [][]int, err error) {
	text, ok := v.(string)
	re, isText := args[0].(string)
	flags, isFlags := args[1].(string)
	if !ok || !isText || !isFlags && args[1] != nil {
		return "", nil, nil, fmt.Errorf("%s cannot be matched, as it is not text: %s", gojq.Preview(v), name)
	}
	if r, err = expression(re, flags); err != nil {
		return "", nil, nil, err
	}
	n := 1
	if all && strings.Contains(flags, "g") {
		n = maxMatches + 1
	}
	found = r.FindAllStringSubmatchIndex(text, n)
	if len(found) > maxMatches {
		return "", nil, nil, errHeavy
	}
	if strings.Contains(flags, "n") {
		kept := found[:0]
		for _, m := range found {
			if m[1] > m[0] {
				kept = append(kept, m)
			}
		}
		found = kept
	}
	return text, r, found, nil
}

var matchGuards = []gojq.CompilerOption{
	gojq.WithFunction("_guard_test", 2, 2, func(v any, args []any) any {
		_, _, found, err := matches("test", v, args, false)
		if err != nil {
			return err
		}
		return len(found) > 0
	}),
	gojq.WithFunction("_guard_match", 2, 2, func(v any, args []any) any {
		text, r, found, err := matches("match", v, args, true)
		if err != nil {
			return err
		}
		// Offsets count characters: each is found from the one before.
		at, characters := 0, 0
		offset := func(to int) int {
			if to < at {
				return characters - utf8.RuneCountInString(text[to:at])
			}
			characters += utf8.RuneCountInString(text[at:to])
			at = to
			return characters
		}
		names := r.SubexpNames()
		out := make([]any, len(found))
		for i, m := range found {
			match := map[string]any{"offset": offset(m[0]), "length": utf8.RuneCountInString(text[m[0]:m[1]]), "string": text[m[0]:m[1]]}
			captures := make([]any, 0, len(names)-1)
			for j := 1; j < len(names); j++ {
				c := map[string]any{"offset": -1, "length": 0, "string": nil, "name": nil}
				if names[j] != "" {
					c["name"] = names[j]
				}
				if from, to := m[2*j], m[2*j+1]; from >= 0 {
					c["offset"], c["length"], c["string"] = offset(from), utf8.RuneCountInString(text[from:to]), text[from:to]
				}
				captures = append(captures, c)
			}
			match["captures"] = captures
			out[i] = match
		}
		return out
	}),
	// What lies between matches, and what the named groups of each have.
	gojq.WithFunction("_guard_pieces", 2, 2, func(v any, args []any) any {
		text, r, found, err := matches("sub", v, args, true)
		if err != nil {
			return err
		}
		names := r.SubexpNames()
		between, captures := make([]any, 0, len(found)+1), make([]any, 0, len(found))
		at := 0
		for _, m := range found {
			between, at = append(between, text[at:m[0]]), m[1]
			groups := map[string]any{}
			for j, name := range names {
				if name == "" {
					continue
				}
				groups[name] = nil
				if m[2*j] >= 0 {
					groups[name] = text[m[2*j]:m[2*j+1]]
				}
			}
			captures = append(captures, groups)
		}
		return map[string]any{"between": append(between, text[at:]), "captures": captures}
	}),
	// Texts between pieces. Where a text has several values, so has the result.
	gojq.WithFunction("_guard_weave", 2, 2, func(_ any, args []any) any {
		between, texts := args[0].([]any), args[1].([]any)
		results := 0
		for _, t := range texts {
			results = max(results, len(t.([]any)))
		}
		out := make([]any, 0, min(results, 16))
		weight := 0
		for n := range results {
			var b strings.Builder
			for i, t := range texts {
				piece, _ := between[i].(string)
				b.WriteString(piece)
				if values := t.([]any); n < len(values) {
					value, ok := values[n].(string)
					if !ok {
						return fmt.Errorf("%s cannot be added to text", gojq.Preview(values[n]))
					}
					b.WriteString(value)
				}
				if weight+b.Len() > maxWeight {
					return errHeavy
				}
			}
			last, _ := between[len(between)-1].(string)
			b.WriteString(last)
			weight += b.Len()
			out = append(out, b.String())
		}
		return out
	}),
}
