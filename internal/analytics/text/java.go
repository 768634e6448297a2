package text

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// javaRegexp is a Java regular expression, rewritten for the two engines: what
// they write differently, mean differently or do not have is put in forms that
// both understand. Flags are resolved, sets are lists of ranges, named groups
// have numbers.
type javaRegexp struct {
	linear string // for RE2; empty if it cannot
	back   string // for the backtracking engine
	groups int
	names  map[string]int
	// dollar says that the linear form takes $ for the very end, which in Java is
	// also before a last line terminator.
	dollar bool
	// boundary says that the linear form knows word boundaries in ASCII only.
	boundary bool
}

type javaFlags struct{ insensitive, unicode, dotAll, multiline, unix, comments bool }

// javaPiece is a part of the output; back is empty if it is the same.
type javaPiece struct{ linear, back string }

type javaParser struct {
	in     []rune
	i      int
	flags  javaFlags
	out    []javaPiece
	size   int
	result javaRegexp
	can    bool // RE2 has all that was met
	refs   map[int]int
	depth  int
}

const (
	maxJavaOutput = 1 << 20
	lineEnds      = `\n\r\x{85}\x{2028}\x{2029}`
	wordLetters   = `[\p{L}\p{Nd}_]`
	never         = `(?!)`
	neverLinear   = `[^\x{0}-\x{10FFFF}]`
)

// translateJava reads a Java regular expression.
func translateJava(pattern string) (r *javaRegexp, err error) {
	if !utf8.ValidString(pattern) {
		return nil, errors.New("it is not UTF-8")
	}
	p := &javaParser{in: []rune(pattern), can: true, refs: map[int]int{}}
	p.result.names = map[string]int{}
	defer func() {
		if e := recover(); e != nil {
			problem, ok := e.(javaProblem)
			if !ok {
				panic(e)
			}
			r, err = nil, errors.New(string(problem))
		}
	}()
	p.alternatives()
	if p.i < len(p.in) {
		p.fail("a ) has no (")
	}
	for at, group := range p.refs {
		if group > p.result.groups {
			p.out[at].back = strings.Replace(p.out[at].back, `(?:\`+strconv.Itoa(group)+`)`, never, 1)
		}
	}
	var linear, back strings.Builder
	for _, piece := range p.out {
		linear.WriteString(piece.linear)
		if piece.back == "" {
			piece.back = piece.linear
		}
		back.WriteString(piece.back)
	}
	p.result.back = back.String()
	if p.can {
		p.result.linear = linear.String()
		if p.result.linear == "" {
			p.result.linear = "(?:)"
		}
	}
	return &p.result, nil
}

type javaProblem string

func (p *javaParser) fail(format string, args ...any) {
	panic(javaProblem(fmt.Sprintf(format, args...) + fmt.Sprintf(", at character %d", p.i+1)))
}

func (p *javaParser) more() bool { return p.i < len(p.in) }

// peek is the next character, -1 at the end.
func (p *javaParser) peek() rune { return p.ahead(0) }

func (p *javaParser) ahead(n int) rune {
	if p.i+n < len(p.in) {
		return p.in[p.i+n]
	}
	return -1
}

func (p *javaParser) take(s string) bool {
	if len(p.in)-p.i < len(s) {
		return false
	}
	for k, c := range s {
		if p.in[p.i+k] != c {
			return false
		}
	}
	p.i += len(s)
	return true
}

func (p *javaParser) emit(s string) { p.emit2(s, "") }

func (p *javaParser) emit2(linear, back string) {
	if p.size += len(linear) + len(back); p.size > maxJavaOutput {
		p.fail("it is too large")
	}
	p.out = append(p.out, javaPiece{linear, back})
}

func (p *javaParser) emitBack(s string) {
	p.can = false
	p.emit2("", s)
}

// skipComments passes over what the flag x makes a remark.
func (p *javaParser) skipComments() {
	for p.flags.comments && p.more() {
		switch c := p.in[p.i]; {
		case c == ' ' || c >= '\t' && c <= '\r':
			p.i++
		case c == '#':
			for p.more() && p.in[p.i] != '\n' && p.in[p.i] != '\r' {
				p.i++
			}
		default:
			return
		}
	}
}

// alternatives reads up to a closing parenthesis or the end.
func (p *javaParser) alternatives() {
	if p.depth++; p.depth > 200 {
		p.fail("it is nested too deeply")
	}
	flags := p.flags
	for {
		p.skipComments()
		if !p.more() || p.peek() == ')' {
			break
		}
		if p.peek() == '|' {
			p.i++
			p.emit("|")
			continue
		}
		at := len(p.out)
		p.atom()
		p.quantifier(at)
	}
	p.flags = flags
	p.depth--
}

func (p *javaParser) atom() {
	switch c := p.peek(); c {
	case '(':
		p.group()
	case '[':
		p.i++
		p.emitSet(p.class(true))
	case '.':
		p.i++
		switch {
		case p.flags.dotAll:
			p.emit(`(?s:.)`)
		case p.flags.unix:
			p.emit(`[^\n]`)
		default:
			p.emit(`[^` + lineEnds + `]`)
		}
	case '^':
		p.i++
		if p.flags.multiline {
			p.emitBack(`(?:\A|(?<=[\n\x{85}\x{2028}\x{2029}]|\r(?!\n)))(?!\z)`)
		} else {
			p.emit(`\A`)
		}
	case '$':
		p.i++
		if p.flags.multiline {
			p.emitBack(`(?:\z|(?=[\r\x{85}\x{2028}\x{2029}])|(?<!\r)(?=\n))`)
		} else {
			p.lastLine()
		}
	case '*', '+', '?':
		p.fail("%c has nothing before it", c)
	case '{':
		p.emit("(?:)") // Java repeats the empty text
	case '\\':
		p.escape()
	default:
		p.i++
		p.literal(c)
	}
}

// lastLine is the end, or what is before a line terminator there.
func (p *javaParser) lastLine() {
	p.result.dollar = true
	p.emit2(`\z`, `(?:\z|(?=\r\n\z|[\r\x{85}\x{2028}\x{2029}]\z)|(?<!\r)(?=\n\z))`)
}

func (p *javaParser) literal(c rune) {
	if !p.flags.insensitive || c < utf8.RuneSelf && !asciiLetter(c) || c >= utf8.RuneSelf && !p.flags.unicode {
		p.emit(runeSource(c))
		return
	}
	p.emitSet(p.folded(runeSet{c, c}))
}

func asciiLetter(c rune) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

func runeSource(c rune) string {
	if c < utf8.RuneSelf && (asciiLetter(c) || c >= '0' && c <= '9') {
		return string(c)
	}
	return fmt.Sprintf(`\x{%x}`, c)
}

func (p *javaParser) quantifier(at int) {
	p.skipComments()
	low, high := 0, -1
	switch p.peek() {
	case '?':
		high = 1
		p.i++
	case '*':
		p.i++
	case '+':
		low = 1
		p.i++
	case '{':
		p.i++
		low = p.number()
		high = low
		if p.take(",") {
			if high = -1; p.peek() != '}' {
				high = p.number()
			}
		}
		if !p.take("}") || high >= 0 && high < low {
			p.fail("a number of repetitions is wrong")
		}
	default:
		return
	}
	q := fmt.Sprintf("{%d,%d}", low, high)
	switch {
	case high < 0 && low == 0:
		q = "*"
	case high < 0 && low == 1:
		q = "+"
	case high < 0:
		q = fmt.Sprintf("{%d,}", low)
	case low == 0 && high == 1:
		q = "?"
	}
	open, end := "(?:", ")"+q
	switch p.peek() {
	case '?':
		p.i++
		end += "?"
	case '+':
		p.i++
		p.can = false
		open, end = "(?>(?:", end+")"
	}
	first := &p.out[at]
	if first.back != "" || first.linear == "" {
		first.back = open + first.back
	}
	first.linear = open + first.linear
	p.emit(end)
}

func (p *javaParser) number() int {
	from := p.i
	n := 0
	for c := p.peek(); c >= '0' && c <= '9' && n < 1<<24; c = p.peek() {
		n = n*10 + int(c-'0')
		p.i++
	}
	if p.i == from || n > 1<<24 {
		p.fail("a number of repetitions is wrong")
	}
	return n
}

func (p *javaParser) group() {
	p.i++
	flags := p.flags
	switch {
	case !p.take("?"):
		p.result.groups++
		p.emit("(")
	case p.take(":"):
		p.emit("(?:")
	case p.take("="):
		p.emitBack("(?=")
	case p.take("!"):
		p.emitBack("(?!")
	case p.take(">"):
		p.emitBack("(?>")
	case p.take("<="):
		p.emitBack("(?<=")
	case p.take("<!"):
		p.emitBack("(?<!")
	case p.take("<"):
		name := p.name()
		if _, again := p.result.names[name]; again {
			p.fail("two groups are named %s", name)
		}
		p.result.groups++
		p.result.names[name] = p.result.groups
		p.emit("(")
	default:
		on := true
		for {
			c := p.peek()
			p.i++
			switch c {
			case '-':
				on = false
			case 'i':
				p.flags.insensitive = on
			case 'u', 'U':
				p.flags.unicode = on
			case 's':
				p.flags.dotAll = on
			case 'm':
				p.flags.multiline = on
			case 'd':
				p.flags.unix = on
			case 'x':
				p.flags.comments = on
			case ')':
				p.emit("(?:)")
				return // the flags hold up to the end of the group around
			case ':':
			default:
				p.fail("a group begins with (? and nothing that is known")
			}
			if c == ':' {
				break
			}
		}
		p.emit("(?:")
	}
	p.alternatives()
	if !p.take(")") {
		p.fail("a ( has no )")
	}
	p.flags = flags
	p.emit(")")
}

// name reads the name of a group and the > behind it.
func (p *javaParser) name() string {
	var b strings.Builder
	for c := p.peek(); asciiLetter(c) || b.Len() > 0 && c >= '0' && c <= '9'; c = p.peek() {
		b.WriteRune(c)
		p.i++
	}
	if b.Len() == 0 || !p.take(">") {
		p.fail("the name of a group is wrong")
	}
	return b.String()
}

func (p *javaParser) reference(group int) {
	p.can = false
	p.refs[len(p.out)] = group
	source := `(?:\` + strconv.Itoa(group) + `)`
	if p.flags.insensitive {
		source = `(?i:` + source + `)`
	}
	p.emit2("", source)
}

func (p *javaParser) escape() {
	p.i++
	c := p.peek()
	switch {
	case c == 'Q':
		p.i++
		for p.more() && !p.take(`\E`) {
			p.literal(p.in[p.i])
			p.i++
			// What is quantified behind \E is the last character.
			if p.more() && !(p.peek() == '\\' && p.ahead(1) == 'E') {
				continue
			}
			if p.ahead(2) == '*' || p.ahead(2) == '+' || p.ahead(2) == '?' || p.ahead(2) == '{' {
				p.take(`\E`)
				p.quantifier(len(p.out) - 1)
				return
			}
		}
		p.emit("(?:)")
		return
	case c == 'E':
		p.fail(`\E has no \Q`)
	case c >= '1' && c <= '9':
		p.i++
		n := int(c - '0')
		for d := p.peek(); d >= '0' && d <= '9' && n*10+int(d-'0') <= p.result.groups; d = p.peek() {
			n = n*10 + int(d-'0')
			p.i++
		}
		p.reference(n)
		return
	}
	switch c {
	case 'A', 'z':
		p.emit(`\` + string(c))
	case 'Z':
		p.lastLine()
	case 'G':
		p.emitBack(`\G`)
	case 'b':
		p.result.boundary = true
		p.emit2(`\b`, `(?:(?<=`+wordLetters+`)(?!`+wordLetters+`)|(?<!`+wordLetters+`)(?=`+wordLetters+`))`)
	case 'B':
		p.result.boundary = true
		p.emit2(`\B`, `(?:(?<=`+wordLetters+`)(?=`+wordLetters+`)|(?<!`+wordLetters+`)(?!`+wordLetters+`))`)
	case 'R':
		p.emit(`(?:\r\n|[\n\x{b}\f\r\x{85}\x{2028}\x{2029}])`)
	case 'k':
		p.i++
		if !p.take("<") {
			p.fail(`\k is followed by the name of a group`)
		}
		name := p.name()
		group, ok := p.result.names[name]
		if !ok {
			p.fail("there is no group %s", name)
		}
		p.reference(group)
		return
	default:
		set, one := p.escaped()
		if one >= 0 {
			p.literal(one)
		} else {
			p.emitSet(set)
		}
		return
	}
	p.i++
}

// escaped reads what follows a backslash inside a set or outside of it: a
// character, or a set and -1.
func (p *javaParser) escaped() (runeSet, rune) {
	c := p.peek()
	p.i++
	digit := func(base rune) rune {
		d := p.peek()
		switch {
		case d >= '0' && d <= '9':
			d -= '0'
		case asciiLetter(d):
			d = d | 0x20 - 'a' + 10
		default:
			return -1
		}
		if d >= base {
			return -1
		}
		p.i++
		return d
	}
	hex := func(n int) rune {
		v := rune(0)
		for range n {
			d := digit(16)
			if d < 0 {
				p.fail("a hexadecimal digit is missing")
			}
			v = v<<4 | d
		}
		return v
	}
	switch c {
	case -1:
		p.fail(`it ends with \`)
	case '0':
		v := digit(8)
		if v < 0 {
			p.fail("an octal digit is missing")
		}
		for range 2 {
			if v*8 > 0377 {
				break
			}
			d := digit(8)
			if d < 0 {
				break
			}
			v = v*8 + d
		}
		return nil, v
	case 'x':
		if p.take("{") {
			v := rune(0)
			for d := digit(16); d >= 0 && v <= unicode.MaxRune; d = digit(16) {
				v = v<<4 | d
			}
			if !p.take("}") || v > unicode.MaxRune {
				p.fail("a character's number is wrong")
			}
			return nil, v
		}
		return nil, hex(2)
	case 'u':
		v := hex(4)
		if v >= 0xD800 && v < 0xDC00 && p.peek() == '\\' && p.ahead(1) == 'u' {
			p.i += 2
			return nil, (v-0xD800)<<10 + (hex(4) - 0xDC00) + 0x10000
		}
		return nil, v
	case 'c':
		v := p.peek()
		if v < 0 {
			p.fail(`\c is followed by a letter`)
		}
		p.i++
		return nil, v ^ 64
	case 'a':
		return nil, 7
	case 'e':
		return nil, 27
	case 'f':
		return nil, '\f'
	case 'n':
		return nil, '\n'
	case 'r':
		return nil, '\r'
	case 't':
		return nil, '\t'
	case 'p', 'P':
		set := p.property()
		if c == 'P' {
			set = set.not()
		}
		return set, -1
	}
	if set, ok := javaClasses[c|0x20]; ok && asciiLetter(c) {
		if c < 'a' {
			set = set.not()
		}
		return set, -1
	}
	if asciiLetter(c) || c >= '1' && c <= '9' {
		p.fail(`\%c means nothing`, c)
	}
	return nil, c
}

// javaClasses are \d and its like; in capitals they are all other characters.
var javaClasses = map[rune]runeSet{
	'd': {'0', '9'}, 's': {'\t', '\r', ' ', ' '}, 'w': {'0', '9', 'A', 'Z', '_', '_', 'a', 'z'},
	'h': {'\t', '\t', ' ', ' ', 0xA0, 0xA0, 0x1680, 0x1680, 0x180E, 0x180E, 0x2000, 0x200A, 0x202F, 0x202F, 0x205F, 0x205F, 0x3000, 0x3000},
	'v': {'\n', '\r', 0x85, 0x85, 0x2028, 0x2029},
}

var posixClasses = map[string]runeSet{
	"Lower": {'a', 'z'}, "Upper": {'A', 'Z'}, "ASCII": {0, 0x7F}, "Alpha": {'A', 'Z', 'a', 'z'}, "Digit": {'0', '9'}, "Alnum": {'0', '9', 'A', 'Z', 'a', 'z'},
	"Punct": {'!', '/', ':', '@', '[', '`', '{', '~'}, "Graph": {'!', '~'}, "Print": {' ', '~'}, "Blank": {'\t', '\t', ' ', ' '}, "Cntrl": {0, 0x1F, 0x7F, 0x7F},
	"XDigit": {'0', '9', 'A', 'F', 'a', 'f'}, "Space": {'\t', '\r', ' ', ' '}, "L1": {0, 0xFF}, "all": {0, unicode.MaxRune},
}

// property reads the name behind \p.
func (p *javaParser) property() runeSet {
	name := ""
	if p.take("{") {
		for p.more() && p.peek() != '}' {
			name += string(p.peek())
			p.i++
			if len(name) > 100 {
				p.fail("a property has no such name")
			}
		}
		if !p.take("}") {
			p.fail("a property begins with { and has no }")
		}
	} else if p.more() {
		name = string(p.peek())
		p.i++
	}
	if set, ok := posixClasses[name]; ok {
		if p.flags.insensitive && (name == "Lower" || name == "Upper") {
			set = posixClasses["Alpha"]
		}
		return set
	}
	short := name
	for _, prefix := range []string{"Is", "general_category=", "gc=", "script=", "sc=", "java"} {
		short = strings.TrimPrefix(short, prefix)
	}
	other := map[string]*unicode.RangeTable{"Alphabetic": unicode.Letter, "Letter": unicode.Letter, "Lowercase": unicode.Lower, "LowerCase": unicode.Lower, "Uppercase": unicode.Upper, "UpperCase": unicode.Upper,
		"Digit": unicode.Nd, "White_Space": unicode.White_Space, "WhiteSpace": unicode.White_Space, "Punctuation": unicode.Punct, "Ideographic": unicode.Ideographic, "Control": unicode.Cc}
	table := unicode.Categories[short]
	if table == nil {
		table = unicode.Scripts[short]
	}
	if table == nil && short != name {
		table = other[short]
	}
	switch {
	case table != nil:
	case name == "javaLetterOrDigit":
		return newRuneSet(append(tableSet(unicode.L), tableSet(unicode.Nd)...))
	default:
		p.fail("there is no property %s", name)
	}
	return tableSet(table)
}

func tableSet(table *unicode.RangeTable) runeSet {
	var s runeSet
	add := func(low, high, stride rune) {
		if stride == 1 {
			s = append(s, low, high)
			return
		}
		for r := low; r <= high; r += stride {
			s = append(s, r, r)
		}
	}
	for _, r := range table.R16 {
		add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	for _, r := range table.R32 {
		add(rune(r.Lo), rune(r.Hi), rune(r.Stride))
	}
	return newRuneSet(s)
}

// class reads a set behind its [, as Java 9 and later do; or, if the bracket is
// not to be taken, what stands behind &&.
func (p *javaParser) class(whole bool) runeSet {
	if p.depth++; p.depth > 200 {
		p.fail("it is nested too deeply")
	}
	defer func() { p.depth-- }()
	var set, last runeSet
	any := false // something has been read
	negated := false
	if p.peek() == '^' && p.in[p.i-1] == '[' {
		negated = true
		p.i++
	}
	for {
		p.skipComments()
		if !p.more() {
			p.fail("a [ has no ]")
		}
		switch c := p.peek(); {
		case c == '[':
			p.i++
			last = p.class(true)
		case c == '&' && p.ahead(1) == '&':
			p.i += 2
			var right runeSet
			found := false
			for p.more() && p.peek() != ']' && p.peek() != '&' {
				inner := p.peek() == '['
				if inner {
					p.i++
				}
				right = newRuneSet(append(slices.Clone(right), p.class(inner)...))
				found = true
			}
			if found {
				last = right
			}
			switch {
			case any:
				if found {
					set = set.and(last)
				}
			case !found:
				p.fail("a set is written wrong")
			default:
				set = right
			}
			any = true
			continue
		case c == ']' && any:
			if whole {
				p.i++
			}
			if negated {
				set = set.not()
			}
			return set
		default:
			last = p.interval()
		}
		set, any = newRuneSet(append(slices.Clone(set), last...)), true
	}
}

// interval reads one character, two with - between them, or a class.
func (p *javaParser) interval() runeSet {
	var low rune
	if p.take(`\`) {
		if p.take("Q") {
			var set runeSet
			for p.more() && !p.take(`\E`) {
				set = append(set, p.folded(runeSet{p.peek(), p.peek()})...)
				p.i++
			}
			return newRuneSet(set)
		}
		set, one := p.escaped()
		if one < 0 {
			return set
		}
		low = one
	} else {
		low = p.peek()
		p.i++
	}
	high := low
	if next := p.ahead(1); p.peek() == '-' && next >= 0 && next != '[' && next != ']' {
		p.i++
		if p.take(`\`) {
			if _, high = p.escaped(); high < 0 {
				p.fail("a range ends with a class")
			}
		} else {
			high = p.peek()
			p.i++
		}
		if high < low {
			p.fail("a range goes backwards")
		}
	}
	return p.folded(runeSet{low, high})
}

// folded adds letters of the other case, if case does not matter.
func (p *javaParser) folded(set runeSet) runeSet {
	if !p.flags.insensitive {
		return set
	}
	more := slices.Clone(set)
	for i := 0; i < len(set); i += 2 {
		if p.flags.unicode && set[i+1]-set[i] <= 4096 {
			for r := set[i]; r <= set[i+1]; r++ {
				for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
					more = append(more, f, f)
				}
			}
			continue
		}
		for r := max(set[i], 'A'); r <= min(set[i+1], 'z'); r++ {
			if asciiLetter(r) {
				more = append(more, r^0x20, r^0x20)
			}
		}
	}
	return newRuneSet(more)
}

func (p *javaParser) emitSet(set runeSet) {
	if len(set) == 0 {
		p.emit2(neverLinear, never)
		return
	}
	var b strings.Builder
	b.WriteByte('[')
	for i := 0; i < len(set); i += 2 {
		b.WriteString(runeSource(set[i]))
		if set[i+1] > set[i] {
			b.WriteString("-" + runeSource(set[i+1]))
		}
	}
	b.WriteByte(']')
	p.emit(b.String())
}

// runeSet has the first and the last character of ranges, in order.
type runeSet []rune

func newRuneSet(pairs []rune) runeSet {
	type interval struct{ low, high rune }
	list := make([]interval, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		list = append(list, interval{pairs[i], pairs[i+1]})
	}
	slices.SortFunc(list, func(a, b interval) int { return int(a.low) - int(b.low) })
	var set runeSet
	for _, in := range list {
		if n := len(set); n > 0 && in.low <= set[n-1]+1 {
			set[n-1] = max(set[n-1], in.high)
		} else {
			set = append(set, in.low, in.high)
		}
	}
	return set
}

func (s runeSet) not() runeSet {
	var out runeSet
	next := rune(0)
	for i := 0; i < len(s); i += 2 {
		if s[i] > next {
			out = append(out, next, s[i]-1)
		}
		next = s[i+1] + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, next, unicode.MaxRune)
	}
	return out
}

func (s runeSet) and(other runeSet) runeSet {
	return newRuneSet(append(s.not(), other.not()...)).not()
}
