package streams

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// pageTokenLife is how long the token of a listing is valid.
const pageTokenLife = 300 * time.Second

// maxPageToken bounds a token before it is decoded.
const maxPageToken = 8 << 10

// pageToken is where a listing goes on. It is sealed with an authentication
// code, so a caller cannot make one up, and holds everything the next page
// needs.
type pageToken struct {
	Kind    string `json:"k"`
	Issued  int64  `json:"i"` // milliseconds
	Account string `json:"a"` // of what is listed
	Region  string `json:"r"`
	Name    string `json:"n,omitempty"` // of the stream
	Stream  uint64 `json:"s,omitempty"` // its id
	After   string `json:"p"`           // the last item of the page before
	Limit   int    `json:"l"`

	Filter   kinesis.ShardFilterType `json:"f,omitempty"`
	FilterAt int64                   `json:"t,omitempty"`
	Streams  []string                `json:"x,omitempty"` // filter of channels
}

// seal makes the text of a token.
func (s *Service) seal(t pageToken) string {
	t.Issued = s.now().UnixMilli()
	body, err := json.Marshal(t)
	if err != nil {
		panic("page token: " + err.Error())
	}
	code := hmac.New(sha256.New, s.tokens[:])
	code.Write(body)
	return base64.StdEncoding.EncodeToString(append(code.Sum(nil), body...))
}

// open reads a token of one kind of listing, for the region of the call.
func (s *Service) open(call *api.Call, kind, token string) (pageToken, error) {
	bad := invalidArgument("NextToken is invalid.")
	if len(token) > maxPageToken {
		return pageToken{}, bad
	}
	data, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(data) < sha256.Size {
		return pageToken{}, bad
	}
	code := hmac.New(sha256.New, s.tokens[:])
	code.Write(data[sha256.Size:])
	if !hmac.Equal(code.Sum(nil), data[:sha256.Size]) {
		return pageToken{}, bad
	}
	var t pageToken
	if err := json.Unmarshal(data[sha256.Size:], &t); err != nil || t.Kind != kind || t.Region != call.Region {
		return pageToken{}, bad
	}
	if issued := time.UnixMilli(t.Issued); s.now().Sub(issued) > pageTokenLife {
		return pageToken{}, &kinesis.ExpiredNextTokenException{Message: text(
			"NextToken expired. The token was created at time %s while right now it is %s which is further in the future than the tolerated delay of %d milliseconds.",
			[]any{wireTime(issued), wireTime(s.now()), pageTokenLife.Milliseconds()})}
	}
	return t, nil
}

// wireTime is a time as error texts show it.
func wireTime(t time.Time) string { return t.UTC().Format("Mon Jan 02 15:04:05 UTC 2006") }
