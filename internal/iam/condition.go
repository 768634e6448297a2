package iam

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// condition is one key of one operator.
type condition struct {
	name     string // as written
	key      string
	values   []string
	test     func(got, want string) bool
	negated  bool // true unless a value passes the test
	ifExists bool
	null     bool
	set      setOperator
	glob     bool // values are patterns
	fold     bool // patterns ignore case
	arn      bool // patterns match part by part
}

type setOperator uint8

const (
	noSet setOperator = iota
	forAll
	forAny
)

type operator struct {
	test            func(got, want string) bool
	check           func(want string) error
	negated         bool
	glob, fold, arn bool
}

func equal(a, b string) bool { return a == b }

var operators = map[string]operator{
	"StringEquals":              {test: equal},
	"StringNotEquals":           {test: equal, negated: true},
	"StringEqualsIgnoreCase":    {test: strings.EqualFold},
	"StringNotEqualsIgnoreCase": {test: strings.EqualFold, negated: true},
	"StringLike":                {glob: true},
	"StringNotLike":             {glob: true, negated: true},
	"NumericEquals":             number(func(a, b float64) bool { return a == b }, false),
	"NumericNotEquals":          number(func(a, b float64) bool { return a == b }, true),
	"NumericLessThan":           number(func(a, b float64) bool { return a < b }, false),
	"NumericLessThanEquals":     number(func(a, b float64) bool { return a <= b }, false),
	"NumericGreaterThan":        number(func(a, b float64) bool { return a > b }, false),
	"NumericGreaterThanEquals":  number(func(a, b float64) bool { return a >= b }, false),
	"DateEquals":                date(func(c int) bool { return c == 0 }, false),
	"DateNotEquals":             date(func(c int) bool { return c == 0 }, true),
	"DateLessThan":              date(func(c int) bool { return c < 0 }, false),
	"DateLessThanEquals":        date(func(c int) bool { return c <= 0 }, false),
	"DateGreaterThan":           date(func(c int) bool { return c > 0 }, false),
	"DateGreaterThanEquals":     date(func(c int) bool { return c >= 0 }, false),
	"Bool":                      {test: strings.EqualFold, check: checkBool},
	"BinaryEquals":              {test: sameBytes, check: checkBinary},
	"IpAddress":                 {test: inNetwork, check: checkNetwork},
	"NotIpAddress":              {test: inNetwork, check: checkNetwork, negated: true},
	"ArnEquals":                 {glob: true, arn: true},
	"ArnLike":                   {glob: true, arn: true},
	"ArnNotEquals":              {glob: true, arn: true, negated: true},
	"ArnNotLike":                {glob: true, arn: true, negated: true},
}

func number(f func(a, b float64) bool, negated bool) operator {
	return operator{
		test: func(got, want string) bool {
			a, err1 := strconv.ParseFloat(got, 64)
			b, err2 := strconv.ParseFloat(want, 64)
			return err1 == nil && err2 == nil && f(a, b)
		},
		check: func(want string) error {
			if _, err := strconv.ParseFloat(want, 64); err != nil {
				return fmt.Errorf("%q is not a number", want)
			}
			return nil
		},
		negated: negated,
	}
}

func date(f func(order int) bool, negated bool) operator {
	return operator{
		test: func(got, want string) bool {
			a, ok1 := parseDate(got)
			b, ok2 := parseDate(want)
			return ok1 && ok2 && f(a.Compare(b))
		},
		check: func(want string) error {
			if _, ok := parseDate(want); !ok {
				return fmt.Errorf("%q is neither an ISO 8601 date nor seconds since 1970", want)
			}
			return nil
		},
		negated: negated,
	}
}

func parseDate(s string) (time.Time, bool) {
	for _, layout := range [...]string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(seconds, 0), true
	}
	return time.Time{}, false
}

func checkBool(want string) error {
	if !strings.EqualFold(want, "true") && !strings.EqualFold(want, "false") {
		return fmt.Errorf("%q is neither true nor false", want)
	}
	return nil
}

func sameBytes(got, want string) bool {
	a, err1 := base64.StdEncoding.DecodeString(got)
	b, err2 := base64.StdEncoding.DecodeString(want)
	return err1 == nil && err2 == nil && bytes.Equal(a, b)
}

func checkBinary(want string) error {
	if _, err := base64.StdEncoding.DecodeString(want); err != nil {
		return fmt.Errorf("%q is not base64", want)
	}
	return nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	if strings.Contains(s, "/") {
		return netip.ParsePrefix(s)
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func inNetwork(got, want string) bool {
	a, err := netip.ParseAddr(got)
	if err != nil {
		return false
	}
	network, err := parseNetwork(want)
	return err == nil && network.Contains(a.Unmap())
}

func checkNetwork(want string) error {
	if _, err := parseNetwork(want); err != nil {
		return fmt.Errorf("%q is neither an address nor a range such as 10.0.0.0/8", want)
	}
	return nil
}

func newCondition(name, key string, values []string, variables bool) (condition, error) {
	c := condition{name: name, key: key, values: values}
	if key == "" {
		return c, errors.New("the key is empty")
	}
	if len(values) == 0 {
		return c, errors.New("there are no values")
	}
	base := name
	if rest, ok := strings.CutPrefix(base, "ForAllValues:"); ok {
		base, c.set = rest, forAll
	} else if rest, ok := strings.CutPrefix(base, "ForAnyValue:"); ok {
		base, c.set = rest, forAny
	}
	if base == "Null" && c.set == noSet {
		c.null = true
		for _, v := range values {
			if err := checkBool(v); err != nil {
				return c, err
			}
		}
		return c, nil
	}
	base, c.ifExists = strings.CutSuffix(base, "IfExists")
	o, ok := operators[base]
	if !ok {
		return c, errors.New("the operator is unknown")
	}
	if o.check != nil {
		for _, v := range values {
			if variables && strings.Contains(v, "${") {
				continue
			}
			if err := o.check(v); err != nil {
				return c, err
			}
		}
	}
	c.test, c.negated, c.glob, c.fold, c.arn = o.test, o.negated, o.glob, o.fold, o.arn
	return c, nil
}

// holds evaluates the condition.
func (c *condition) holds(e *environment, variables bool) bool {
	got, there := e.lookup(c.key)
	if c.null {
		for _, v := range c.values {
			if strings.EqualFold(v, "true") == !there {
				return true
			}
		}
		return false
	}
	if !there {
		return c.ifExists || c.set == forAll || c.set == noSet && c.negated
	}
	switch c.set {
	case forAll:
		for _, v := range got {
			if c.any(e, v, variables) == c.negated {
				return false
			}
		}
		return true
	case forAny:
		for _, v := range got {
			if c.any(e, v, variables) != c.negated {
				return true
			}
		}
		return false
	}
	for _, v := range got {
		if c.any(e, v, variables) {
			return !c.negated
		}
	}
	return c.negated
}

// any reports whether one of the policy's values accepts got.
func (c *condition) any(e *environment, got string, variables bool) bool {
	for _, want := range c.values {
		switch {
		case c.glob:
			p, ok := e.expand(want, variables)
			if ok && (!c.arn && p.match(got, c.fold) || c.arn && p.matchARN(got)) {
				return true
			}
		default:
			if variables && strings.Contains(want, "${") {
				p, ok := e.expand(want, variables)
				if !ok {
					continue
				}
				want = p.literal()
			}
			if c.test(got, want) {
				return true
			}
		}
	}
	return false
}
