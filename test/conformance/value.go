package conformance

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"
)

// M is a structure in the service's own member names. Values are string, bool,
// int64, float64, []byte, time.Time, []any and M.
type M = map[string]any

// Failure is an error reply, as the client told it.
type Failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Status  int    `json:"status"` // 0 where the client does not tell
}

func (f *Failure) Error() string { return f.Code + ": " + f.Message }

// toJSON makes bytes and times recognisable for a subprocess.
func toJSON(v any) any {
	switch v := v.(type) {
	case []byte:
		return M{"$blob": base64.StdEncoding.EncodeToString(v)}
	case time.Time:
		return M{"$time": v.UnixMilli()}
	case M:
		out := make(M, len(v))
		for k, e := range v {
			out[k] = toJSON(e)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = toJSON(e)
		}
		return out
	}
	return v
}

// fromJSON is the reverse of toJSON; numbers become int64 where they are whole.
func fromJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		if s, ok := v["$blob"].(string); ok {
			b, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				return fmt.Sprintf("not base64: %q", s)
			}
			return b
		}
		if n, ok := v["$time"].(json.Number); ok {
			ms, _ := n.Int64()
			return time.UnixMilli(ms)
		}
		out := make(M, len(v))
		for k, e := range v {
			if e != nil {
				out[k] = fromJSON(e)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = fromJSON(e)
		}
		return out
	}
	return v
}

// at walks down a reply: member names and list indexes. It returns nil where
// there is nothing.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(M)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p < 0 {
				p += len(l)
			}
			if p < 0 || p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

func text(v any, path ...any) string {
	s, _ := at(v, path...).(string)
	return s
}

func number(v any, path ...any) int64 {
	switch n := at(v, path...).(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case float64:
		return int64(n)
	}
	return -1 << 62
}

func list(v any, path ...any) []any {
	l, _ := at(v, path...).([]any)
	return l
}
