package sigv4

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
)

func incomplete(text string) error {
	return &Error{Code: api.CodeIncompleteSignature, Message: text}
}

func invalid(text string) error {
	return &Error{Code: api.CodeInvalidSignature, Message: text}
}

// Parse reads who claims to have signed a request, without verifying it. It
// fails, like Verify, if there is no authentication, a part of it is missing or
// malformed, or its region cannot be one. The errors are of type *Error.
func Parse(r *http.Request) (*Result, error) {
	header := r.Header["Authorization"]
	q := parseQuery(r.URL.RawQuery)
	byQuery := q.has("X-Amz-Algorithm")
	switch {
	case len(header) > 0 && header[0] != "" && byQuery:
		return nil, invalid("Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.")
	case byQuery:
		return parseQueryForm(r, q)
	case len(header) > 0 && strings.HasPrefix(strings.TrimSpace(header[0]), "AWS4-"):
		return parseHeaderForm(r, q, header[0])
	}
	return nil, &Error{Code: api.CodeMissingAuthentication, Message: "Missing Authentication Token"}
}

func parseHeaderForm(r *http.Request, q query, header string) (*Result, error) {
	res := &Result{query: q}
	name, rest, _ := strings.Cut(strings.TrimSpace(header), " ")
	var credential, signedHeaders string
	for len(rest) > 0 {
		var part string
		if i := strings.IndexAny(rest, ", "); i >= 0 {
			part, rest = rest[:i], rest[i+1:]
		} else {
			part, rest = rest, ""
		}
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "Credential":
			credential = value
		case "Signature":
			res.signature = value
		case "SignedHeaders":
			signedHeaders = value
		}
	}
	date := first(r.Header["X-Amz-Date"])
	dateHeader := first(r.Header["Date"])
	var missing []string
	for _, p := range [...]struct{ name, value string }{
		{"Credential", credential}, {"Signature", res.signature}, {"SignedHeaders", signedHeaders},
	} {
		if p.value == "" {
			missing = append(missing, "Authorization header requires '"+p.name+"' parameter.")
		}
	}
	if date == "" && dateHeader == "" {
		missing = append(missing, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if missing != nil {
		return nil, incomplete(strings.Join(missing, " ") + " Authorization=" + echo(header))
	}
	if name != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '" + echo(name) + "'.")
	}
	if date == "" {
		// RFC 1123 is what HTTP prescribes; the basic form occurs too.
		if t, err := http.ParseTime(dateHeader); err == nil {
			date = t.UTC().Format(timeLayout)
		} else {
			date = dateHeader
		}
	}
	res.Token = first(r.Header["X-Amz-Security-Token"])
	return res, res.complete(credential, signedHeaders, date)
}

func parseQueryForm(r *http.Request, q query) (*Result, error) {
	res := &Result{Query: true, query: q}
	var values [5]string
	var missing []string
	for i, name := range [...]string{"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if values[i] = q.get(name); values[i] == "" {
			missing = append(missing, "AWS query-string parameters must include '"+name+"'.")
		}
	}
	if missing != nil {
		return nil, incomplete(strings.Join(missing, " ") + " Re-examine the query-string parameters.")
	}
	if values[0] != algorithm {
		return nil, incomplete("Unsupported AWS 'algorithm': '" + echo(values[0]) + "'.")
	}
	res.signature = values[2]
	if q.has("X-Amz-Expires") {
		text := q.get("X-Amz-Expires")
		seconds, err := strconv.ParseUint(text, 10, 32)
		if err != nil || seconds < 1 || seconds > uint64(maxExpires/time.Second) {
			return nil, incomplete("'X-Amz-Expires' must be between 1 and 604800 seconds, got '" + echo(text) + "'. Re-examine the query-string parameters.")
		}
		res.expires = time.Duration(seconds) * time.Second
	}
	if res.Token = q.get("X-Amz-Security-Token"); res.Token == "" {
		res.Token = first(r.Header["X-Amz-Security-Token"])
	}
	return res, res.complete(values[1], values[3], values[4])
}

// complete fills what both forms write alike.
func (res *Result) complete(credential, signedHeaders, date string) error {
	// The access key is cut off from the right: open servers meet keys with
	// slashes in them.
	rest := credential
	var parts [4]string
	for i := len(parts) - 1; i >= 0; i-- {
		slash := strings.LastIndexByte(rest, '/')
		if slash < 0 {
			return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '" + echo(credential) + "'")
		}
		rest, parts[i] = rest[:slash], rest[slash+1:]
	}
	if rest == "" {
		return incomplete("Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '" + echo(credential) + "'")
	}
	res.AccessKey, res.Date, res.Region, res.Service, res.terminator = rest, parts[0], parts[1], parts[2], parts[3]

	t, ok := parseTime(date)
	if !ok {
		return incomplete("Date must be in ISO-8601 'basic format'. Got '" + echo(date) + "'. See http://en.wikipedia.org/wiki/ISO_8601")
	}
	res.Time, res.timeText = t, date

	n := strings.Count(signedHeaders, ";") + 1
	if n > maxSignedHeaders {
		return invalid("More than " + strconv.Itoa(maxSignedHeaders) + " headers are signed.")
	}
	res.SignedHeaders = make([]string, 0, n)
	for name := range strings.SplitSeq(signedHeaders, ";") {
		name = strings.TrimSpace(name)
		for _, other := range res.SignedHeaders {
			if strings.EqualFold(other, name) {
				return invalid("'" + echo(name) + "' is listed twice among the signed headers.")
			}
		}
		res.SignedHeaders = append(res.SignedHeaders, name)
	}
	// Who does not verify keeps state by the region as well.
	if !validRegion(res.Region) {
		return res.checkScope("")
	}
	return nil
}

// parseTime reads YYYYMMDDTHHMMSSZ.
func parseTime(s string) (time.Time, bool) {
	if len(s) != len(timeLayout) || s[8] != 'T' || s[15] != 'Z' {
		return time.Time{}, false
	}
	t, err := time.Parse(timeLayout, s)
	return t, err == nil
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
