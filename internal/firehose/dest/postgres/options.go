package postgres

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Layout is how rows stand in an input.
type Layout int

// The layouts of COPY.
const (
	Delimited Layout = iota // fields between delimiters, the default
	CSV
	FixedWidth
	JSONAuto  // members go to the columns of their name
	JSONPaths // a file says which value goes to which column
	NoShred   // the whole object goes to the first column
)

// CopyOptions are the options of a COPY command of Redshift, as far as rows are
// concerned. Options about regions, statistics and credentials are understood
// and left out: they mean nothing to another server.
type CopyOptions struct {
	Layout      Layout
	IgnoreCase  bool   // JSON 'auto ignorecase'
	JSONPaths   string // s3://bucket/key of the file
	Delimiter   byte
	Quote       byte // of CSV
	Escape      bool // a backslash makes the next character an ordinary one
	Widths      []Width
	Compression string // "", gzip, bzip2, zstd
	Encoding    string // utf8, utf16, utf16le, utf16be

	Null             string // a field of this text is NULL
	DateFormat       string // empty and auto: whatever the server understands
	TimeFormat       string // the same, or epochsecs, epochmillisecs
	BlanksAsNull     bool
	EmptyAsNull      bool
	TruncateColumns  bool
	TrimBlanks       bool
	RemoveQuotes     bool
	FillRecord       bool
	IgnoreBlankLines bool
	AcceptAnyDate    bool
	ExplicitIDs      bool
	// InvalidChar takes the place of bytes that are no UTF-8; 0 refuses the row.
	InvalidChar  byte
	IgnoreHeader int
	// MaxErrors is how many rows may be refused before the load fails: the load
	// of n errors fails where MAXERROR is n. 0 stands for the first error.
	MaxErrors int
}

// Width is a column of FIXEDWIDTH: its name or number, and its width in characters.
type Width struct {
	Column string
	Width  int
}

// OptionError is an option that cannot be followed.
type OptionError struct {
	Option string
	// ForJSON says that the option cannot go together with JSON.
	ForJSON bool
	Reason  string
}

func (e *OptionError) Error() string { return "COPY option " + e.Option + ": " + e.Reason }

// maxWidth bounds a column of FIXEDWIDTH, maxCounts what options count.
const (
	maxWidth  = 65535
	maxCounts = 100_000
)

// ParseCopyOptions reads the text that follows FROM '…' in a COPY command. An
// error is an *OptionError.
func ParseCopyOptions(text string) (*CopyOptions, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, err
	}
	o := &CopyOptions{Delimiter: '|', Quote: '"', Null: `\N`, Encoding: "utf8"}
	p := &optionParser{tokens: tokens, o: o, seen: map[string]bool{}}
	for p.at < len(p.tokens) {
		if err := p.option(); err != nil {
			return nil, err
		}
	}
	return o, p.consistent()
}

type token struct {
	text   string
	quoted bool
}

func (t token) word() string {
	if t.quoted {
		return ""
	}
	return strings.ToUpper(t.text)
}

func tokenize(text string) ([]token, error) {
	var tokens []token
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',':
			i++
		case c == '\'':
			var b strings.Builder
			i++
			for {
				if i >= len(text) {
					return nil, &OptionError{Option: clip(text), Reason: "a quoted text does not end"}
				}
				if text[i] == '\'' {
					if i+1 < len(text) && text[i+1] == '\'' {
						b.WriteByte('\'')
						i += 2
						continue
					}
					i++
					break
				}
				b.WriteByte(text[i])
				i++
			}
			tokens = append(tokens, token{b.String(), true})
		case c == ';':
			i++
		default:
			end := i
			for end < len(text) && (text[end] == '_' || text[end] == '-' || text[end] >= utf8.RuneSelf || unicode.IsLetter(rune(text[end])) || unicode.IsDigit(rune(text[end]))) {
				end++
			}
			if end == i {
				return nil, &OptionError{Option: clip(text[i:]), Reason: "cannot be read"}
			}
			tokens = append(tokens, token{text[i:end], false})
			i = end
		}
	}
	return tokens, nil
}

func clip(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

type optionParser struct {
	tokens []token
	at     int
	o      *CopyOptions
	seen   map[string]bool
}

// take steps over the next token if it is one of words.
func (p *optionParser) take(words ...string) bool {
	if p.at < len(p.tokens) {
		for _, w := range words {
			if p.tokens[p.at].word() == w {
				p.at++
				return true
			}
		}
	}
	return false
}

// quoted takes a quoted text, after an optional AS.
func (p *optionParser) quoted(option string) (string, error) {
	p.take("AS")
	if p.at >= len(p.tokens) || !p.tokens[p.at].quoted {
		return "", &OptionError{Option: option, Reason: "needs a text in quotes"}
	}
	p.at++
	return p.tokens[p.at-1].text, nil
}

// optional takes a quoted text if there is one.
func (p *optionParser) optional() (string, bool) {
	at := p.at
	if text, err := p.quoted(""); err == nil {
		return text, true
	}
	p.at = at
	return "", false
}

func (p *optionParser) number(option string) (int, error) {
	p.take("AS")
	if p.at < len(p.tokens) {
		n, err := strconv.Atoi(p.tokens[p.at].text)
		if err == nil && n >= 0 && n <= maxCounts {
			p.at++
			return n, nil
		}
	}
	return 0, &OptionError{Option: option, Reason: fmt.Sprintf("needs a number from 0 to %d", maxCounts)}
}

// boolean takes TRUE, FALSE, ON or OFF if there is one.
func (p *optionParser) boolean() {
	_ = p.take("TRUE", "FALSE", "ON", "OFF", "PRESET")
}

// character reads one byte, as itself or as an escape.
func character(option, text string) (byte, error) {
	switch {
	case len(text) == 1:
		return text[0], nil
	case text == `\t`:
		return '\t', nil
	case text == `\\`:
		return '\\', nil
	case len(text) == 4 && text[0] == '\\': // octal, as in '\001'
		if n, err := strconv.ParseUint(text[1:], 8, 8); err == nil && n > 0 {
			return byte(n), nil
		}
	}
	return 0, &OptionError{Option: option, Reason: "must be a single character"}
}

func (p *optionParser) option() error {
	t := p.tokens[p.at]
	name := t.word()
	p.at++
	o := p.o
	p.seen[name] = true
	var err error
	switch name {
	case "FORMAT":
		p.take("AS")
		return nil // what follows names the format
	case "JSON":
		o.Layout = JSONAuto
		text, ok := p.optional()
		switch {
		case !ok, strings.EqualFold(text, "auto"):
		case strings.EqualFold(text, "auto ignorecase"):
			o.IgnoreCase = true
		case strings.EqualFold(text, "noshred"):
			o.Layout = NoShred
		case strings.HasPrefix(text, "s3://"):
			o.Layout, o.JSONPaths = JSONPaths, text
		default:
			return &OptionError{Option: "JSON", ForJSON: true, Reason: "must be 'auto', 'auto ignorecase', 'noshred' or the s3:// address of a JSONPaths file"}
		}
	case "CSV":
		o.Layout = CSV
		if p.seen["DELIMITER"] {
			break
		}
		o.Delimiter = ','
	case "DELIMITER":
		text, err := p.quoted(name)
		if err != nil {
			return err
		}
		o.Delimiter, err = character(name, text)
		return err
	case "QUOTE":
		text, err := p.quoted(name)
		if err != nil {
			return err
		}
		o.Quote, err = character(name, text)
		return err
	case "FIXEDWIDTH":
		text, err := p.quoted(name)
		if err != nil {
			return err
		}
		o.Layout = FixedWidth
		for part := range strings.SplitSeq(text, ",") {
			column, width, _ := strings.Cut(strings.TrimSpace(part), ":")
			n, err := strconv.Atoi(strings.TrimSpace(width))
			if err != nil || n < 1 || n > maxWidth || column == "" {
				return &OptionError{Option: name, Reason: fmt.Sprintf("cannot read %q, which should be column:width", clip(part))}
			}
			o.Widths = append(o.Widths, Width{strings.TrimSpace(column), n})
		}
	case "GZIP", "BZIP2", "ZSTD":
		o.Compression = strings.ToLower(name)
	case "LZOP", "AVRO", "PARQUET", "ORC", "SHAPEFILE", "ENCRYPTED", "SSH", "MASTER_SYMMETRIC_KEY":
		return &OptionError{Option: name, Reason: "is for the service's own servers and cannot be followed here"}
	case "ENCODING":
		p.take("AS")
		if p.at >= len(p.tokens) {
			return &OptionError{Option: name, Reason: "needs a name"}
		}
		switch e := strings.ToLower(p.tokens[p.at].text); e {
		case "utf8", "utf16", "utf16le", "utf16be":
			o.Encoding = e
			p.at++
		default:
			return &OptionError{Option: name, Reason: "must be UTF8, UTF16, UTF16LE or UTF16BE"}
		}
	case "ESCAPE":
		o.Escape = true
	case "NULL":
		o.Null, err = p.quoted(name)
		if o.Null == `\0` || o.Null == `\000` {
			o.Null = "\x00"
		}
	case "DATEFORMAT":
		o.DateFormat, err = p.quoted(name)
	case "TIMEFORMAT":
		o.TimeFormat, err = p.quoted(name)
	case "BLANKSASNULL":
		o.BlanksAsNull = true
	case "EMPTYASNULL":
		o.EmptyAsNull = true
	case "TRUNCATECOLUMNS":
		o.TruncateColumns = true
	case "TRIMBLANKS":
		o.TrimBlanks = true
	case "REMOVEQUOTES":
		o.RemoveQuotes = true
	case "FILLRECORD":
		o.FillRecord = true
	case "IGNOREBLANKLINES":
		o.IgnoreBlankLines = true
	case "ACCEPTANYDATE":
		o.AcceptAnyDate = true
	case "EXPLICIT_IDS":
		o.ExplicitIDs = true
	case "ACCEPTINVCHARS":
		o.InvalidChar = '?'
		if text, ok := p.optional(); ok {
			if len(text) != 1 || text[0] >= utf8.RuneSelf || text[0] == 0 {
				return &OptionError{Option: name, Reason: "must be a single ASCII character"}
			}
			o.InvalidChar = text[0]
		}
	case "IGNOREHEADER":
		o.IgnoreHeader, err = p.number(name)
	case "MAXERROR":
		o.MaxErrors, err = p.number(name)
	case "MANIFEST", "ROUNDEC", "NOLOAD":
		if name == "NOLOAD" {
			return &OptionError{Option: name, Reason: "would load nothing"}
		}
	case "STATUPDATE", "COMPUPDATE":
		p.boolean()
	case "COMPROWS", "READRATIO":
		_, err = p.number(name)
	case "REGION", "CREDENTIALS", "IAM_ROLE", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "WITH":
		if name == "CREDENTIALS" {
			p.take("WITH")
		}
		if !p.take("DEFAULT") && name != "WITH" {
			_, err = p.quoted(name)
		}
	default:
		return &OptionError{Option: clip(t.text), Reason: "is not known"}
	}
	return err
}

// consistent checks options against each other.
func (p *optionParser) consistent() error {
	o := p.o
	json := o.Layout == JSONAuto || o.Layout == JSONPaths || o.Layout == NoShred
	if json {
		for _, name := range []string{"CSV", "DELIMITER", "ESCAPE", "FILLRECORD", "FIXEDWIDTH", "IGNOREHEADER", "REMOVEQUOTES", "QUOTE"} {
			if p.seen[name] {
				return &OptionError{Option: name, ForJSON: true, Reason: "cannot go together with JSON"}
			}
		}
	}
	if o.Layout == CSV {
		for _, name := range []string{"ESCAPE", "FIXEDWIDTH", "REMOVEQUOTES"} {
			if p.seen[name] {
				return &OptionError{Option: name, Reason: "cannot go together with CSV"}
			}
		}
		if o.Delimiter == o.Quote {
			return &OptionError{Option: "QUOTE", Reason: "is the delimiter"}
		}
	} else if p.seen["QUOTE"] {
		return &OptionError{Option: "QUOTE", Reason: "needs CSV"}
	}
	if o.Layout == FixedWidth && p.seen["DELIMITER"] {
		return &OptionError{Option: "DELIMITER", Reason: "cannot go together with FIXEDWIDTH"}
	}
	if strings.Contains(o.Null, string(rune(o.Delimiter))) && o.Layout == Delimited {
		return &OptionError{Option: "NULL", Reason: "contains the delimiter"}
	}
	for _, f := range []struct{ option, format string }{{"DATEFORMAT", o.DateFormat}, {"TIMEFORMAT", o.TimeFormat}} {
		switch strings.ToLower(f.format) {
		case "", "auto", "epochsecs", "epochmillisecs":
			if f.option == "DATEFORMAT" && strings.HasPrefix(strings.ToLower(f.format), "epoch") {
				return &OptionError{Option: f.option, Reason: "must be 'auto' or a format"}
			}
		default:
			if _, err := compileFormat(f.format); err != nil {
				return &OptionError{Option: f.option, Reason: err.Error()}
			}
		}
	}
	return nil
}
