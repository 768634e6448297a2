package apigen

import (
	"fmt"
	"regexp"
	"strings"
)

// translations are the modelled patterns that RE2 cannot read, with what it can.
// Everything else is the same in both dialects after the replacements of re2.
var translations = map[string]struct{ re, except string }{
	// Not blank: a look-ahead that refuses white space up to the end.
	`^(?!\s*$).+`: {`.*\S.*`, ""},
	// Reserved tag keys.
	`^(?!aws:)[\p{L}\p{Z}\p{N}_.:\/=+\-@%]*$`: {`[\p{L}\p{Z}\p{N}_.:/=+\-@%]*`, `aws:`},
	// A dollar sign and no white space.
	`^(?=^\$)(?=^\S+$).*$`: {`\$\S*`, ""},
	// Host labels that neither begin nor end with a hyphen.
	`jdbc:(redshift|postgresql)://((?!-)[A-Za-z0-9-]{1,63}(?<!-)\.)+(redshift(-serverless)?)\.([a-zA-Z0-9\.\-]+):\d{1,5}/[a-zA-Z0-9_$-]+`: {
		`jdbc:(redshift|postgresql)://([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+(redshift(-serverless)?)\.([a-zA-Z0-9.\-]+):\d{1,5}/[a-zA-Z0-9_$-]+`, ""},
	// Any text: the surrogates stand for what UTF-8 writes as one character.
	`[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*`:     {`[\x{20}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}\t]*`, ""},
	`[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*`: {`[\x{20}-\x{D7FF}\x{E000}-\x{FFFD}\x{10000}-\x{10FFFF}\r\n\t]*`, ""},
}

var unicodeEscape = regexp.MustCompile(`\\u([0-9A-Fa-f]{4})`)

// re2 translates a modelled pattern. except is a beginning that is refused.
func re2(pattern string) (re, except string, err error) {
	if t, ok := translations[pattern]; ok {
		re, except = t.re, t.except
	} else {
		re = unicodeEscape.ReplaceAllString(pattern, `\x{$1}`)
		re = strings.ReplaceAll(re, "}+", "}") // possessive counts: nothing follows that they could give back to
	}
	if _, err := regexp.Compile(`\A(?:` + re + `)\z`); err != nil {
		return "", "", fmt.Errorf("pattern %s: %w (add it to translations)", pattern, err)
	}
	return re, except, nil
}

var (
	classPattern   = regexp.MustCompile(`^\^?(\[(?:[^\\\]]|\\.)*\])([+*])\$?$`)
	decimalPattern = regexp.MustCompile(`^\^\(0\|\(\[1-9\]\\d\{0,(\d+)\}\)\)\$$`)
)

// patternExpr is the Go expression that makes a pattern.
func patternExpr(pattern string) (string, error) {
	re, except, err := re2(pattern)
	if err != nil {
		return "", err
	}
	if m := decimalPattern.FindStringSubmatch(pattern); m != nil {
		return fmt.Sprintf("api.NewDecimalPattern(%s, 1+%s)", quote(pattern), m[1]), nil
	}
	if m := classPattern.FindStringSubmatch(pattern); m != nil {
		if low, high, ok := asciiClass(m[1]); ok {
			return fmt.Sprintf("api.NewClassPattern(%s, %#016x, %#016x, %t)", quote(pattern), low, high, m[2] == "*"), nil
		}
	}
	if strings.HasSuffix(pattern, `:stream/\S+`) {
		return fmt.Sprintf("api.NewStreamARNPattern(%s, %s)", quote(pattern), quote(re)), nil
	}
	if except != "" {
		return fmt.Sprintf("api.NewPatternExcept(%s, %s, %s)", quote(pattern), quote(re), quote(except)), nil
	}
	return fmt.Sprintf("api.NewPattern(%s, %s)", quote(pattern), quote(re)), nil
}

// asciiClass gives the characters of a class, false if it has others than ASCII.
func asciiClass(class string) (low, high uint64, ok bool) {
	re, err := regexp.Compile(`\A` + class + `\z`)
	if err != nil {
		return 0, 0, false
	}
	for c := rune(0); c < 0x3000; c++ {
		if !re.MatchString(string(c)) {
			continue
		}
		switch {
		case c < 64:
			low |= 1 << c
		case c < 128:
			high |= 1 << (c - 64)
		default:
			return 0, 0, false
		}
	}
	return low, high, !re.MatchString("\U0001F600")
}

func quote(s string) string {
	if strings.ContainsAny(s, "`\n") {
		return fmt.Sprintf("%q", s)
	}
	return "`" + s + "`"
}
