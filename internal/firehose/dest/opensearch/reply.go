package opensearch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/firehose/dest"
)

// item is the outcome of one document.
type item struct {
	Status int             `json:"status"`
	Error  json.RawMessage `json:"error"`
}

func (i item) failed() bool { return i.Status < 200 || i.Status > 299 }

// failure tells a refused document: its code is the status, as in HTTP.
func (i item) failure(index int, prefix string) dest.Failure {
	kind, reason := readError(i.Error)
	f := dest.Failure{
		Index: index, Code: strconv.Itoa(i.Status), Message: clip(string(i.Error)),
		Retry: i.Status == 429 || i.Status >= 500,
	}
	switch {
	case i.Status == 0:
		f.Code, f.Message = prefix+"InternalError", "the answer has no status for this document"
		f.Retry = true
	case kind == "cluster_block_exception":
		f.Retry = true // an index that may not be written is unlocked again
	case strings.Contains(reason, "has more than one indices associated with it"), strings.Contains(reason, "no write index is defined for alias"):
		f.Code = prefix + "AliasWithMultipleIndicesNotAllowed"
	}
	if f.Message == "" {
		f.Message = "refused with status " + f.Code
	}
	return f
}

func clip(s string) string {
	const most = 2000
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// readError finds type and reason in {"error":{…}}, {"type":…} or plain text.
func readError(raw []byte) (kind, reason string) {
	var whole struct {
		Error json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(raw, &whole); err == nil && len(whole.Error) > 0 {
		raw = whole.Error
	}
	var e struct {
		Type   string `json:"type"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(raw, &e); err == nil {
		return e.Type, clip(e.Reason)
	}
	var text string
	if err := json.Unmarshal(raw, &text); err == nil {
		return "", clip(text)
	}
	var aws struct {
		Message string `json:"Message"`
		Lower   string `json:"message"`
	}
	if err := json.Unmarshal(raw, &aws); err == nil && aws.Message+aws.Lower != "" {
		return "", clip(aws.Message + aws.Lower)
	}
	return "", ""
}

// maxReply bounds an answer, in bytes: a few lines a document.
func maxReply(documents int) int64 { return 64<<10 + int64(documents)*8<<10 }

var (
	errSize  = errors.New("too large")
	errCount = errors.New("the answer does not fit the request")
)

// bounded reads up to a limit and remembers errors of the connection.
type bounded struct {
	in   io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errSize
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// readItems reads the answer to a bulk request, which must have an item for
// every document.
func readItems(in io.Reader, documents int) ([]item, error) {
	d := json.NewDecoder(in)
	if err := expect(d, '{'); err != nil {
		return nil, err
	}
	var items []item
	seen := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		if key != "items" || seen {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return nil, err
			}
			continue
		}
		seen = true
		if err := expect(d, '['); err != nil {
			return nil, err
		}
		items = make([]item, 0, documents)
		for d.More() {
			if len(items) == documents {
				return nil, fmt.Errorf("%w: more than %d items", errCount, documents)
			}
			var action map[string]item
			if err := d.Decode(&action); err != nil {
				return nil, err
			}
			if len(action) != 1 {
				return nil, fmt.Errorf("%w: an item with %d outcomes", errCount, len(action))
			}
			for _, i := range action {
				items = append(items, i)
			}
		}
		if err := expect(d, ']'); err != nil {
			return nil, err
		}
	}
	if err := expect(d, '}'); err != nil {
		return nil, err
	}
	if len(items) != documents {
		return nil, fmt.Errorf("%w: %d items for %d documents", errCount, len(items), documents)
	}
	return items, nil
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if t != want {
		return fmt.Errorf("%v where %v should be", t, want)
	}
	return nil
}

func sorted(failures []dest.Failure) []dest.Failure {
	slices.SortFunc(failures, func(a, b dest.Failure) int { return a.Index - b.Index })
	return failures
}
