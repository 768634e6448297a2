package api

import (
	"regexp"
	"strings"
	"sync"
)

// Pattern is a modelled regular expression. A string satisfies it as a whole.
// The models write Java's dialect; Text keeps it for replies, and the generator
// translates it for matching.
type Pattern struct {
	Text string

	re     string // RE2, not anchored
	except string // RE2; a string that begins so is refused, empty for none
	fast   func(s string) (matches, sure bool)

	once    sync.Once
	matcher *regexp.Regexp
	refuse  *regexp.Regexp
}

// NewPattern makes a pattern from its RE2 translation. It is compiled when first
// needed.
func NewPattern(text, re string) *Pattern { return &Pattern{Text: text, re: re} }

// NewPatternExcept makes a pattern which strings with a certain beginning do not
// satisfy: the one use of negative look-ahead that RE2 cannot express.
func NewPatternExcept(text, re, except string) *Pattern {
	return &Pattern{Text: text, re: re, except: except}
}

// NewClassPattern makes a pattern for strings of ASCII characters out of one
// set. Bit c of low is character c, bit c of high is character 64+c.
func NewClassPattern(text string, low, high uint64, empty bool) *Pattern {
	return &Pattern{Text: text, fast: func(s string) (bool, bool) {
		for i := 0; i < len(s); i++ {
			c := s[i]
			if c >= 0x80 || (c < 64 && low>>c&1 == 0) || (c >= 64 && high>>(c-64)&1 == 0) {
				return false, true
			}
		}
		return empty || s != "", true
	}}
}

// NewDecimalPattern makes the pattern of decimal numbers without leading zeros
// of at most the given number of digits.
func NewDecimalPattern(text string, digits int) *Pattern {
	return &Pattern{Text: text, fast: func(s string) (bool, bool) {
		if len(s) == 0 || len(s) > digits || s[0] == '0' && len(s) > 1 {
			return false, true
		}
		for i := 0; i < len(s); i++ {
			if s[i]-'0' > 9 {
				return false, true
			}
		}
		return true, true
	}}
}

// NewStreamARNPattern makes the pattern of stream ARNs, which calls of the data
// plane carry: ARNs as they usually look are recognised without the regular
// expression, everything else is left to it.
func NewStreamARNPattern(text, re string) *Pattern {
	return &Pattern{Text: text, re: re, fast: func(s string) (bool, bool) {
		rest, ok := strings.CutPrefix(s, "arn:aws:kinesis:")
		if !ok {
			return false, false
		}
		region := strings.IndexByte(rest, ':')
		if region < 0 || strings.IndexByte(rest[:region], '\n') >= 0 {
			return false, false
		}
		rest = rest[region+1:]
		const tail = len("123456789012:stream/")
		if len(rest) <= tail || rest[12:tail] != ":stream/" {
			return false, false
		}
		for i := range 12 {
			if rest[i]-'0' > 9 {
				return false, false
			}
		}
		for i := tail; i < len(rest); i++ {
			if c := rest[i]; c <= ' ' || c >= 0x7f {
				return false, false
			}
		}
		return true, true
	}}
}

// maxMatched bounds what is given to a regular expression, in bytes. No model
// allows longer strings that have a pattern.
const maxMatched = 256 << 10

// Match reports whether all of s satisfies the pattern.
func (p *Pattern) Match(s string) bool {
	if p.fast != nil {
		if matches, sure := p.fast(s); sure {
			return matches
		}
	}
	if len(s) > maxMatched {
		return false
	}
	p.once.Do(p.compile)
	return p.matcher.MatchString(s) && (p.refuse == nil || !p.refuse.MatchString(s))
}

func (p *Pattern) compile() {
	p.matcher = regexp.MustCompile(`\A(?:` + p.re + `)\z`)
	if p.except != "" {
		p.refuse = regexp.MustCompile(`\A(?:` + p.except + `)`)
	}
}
