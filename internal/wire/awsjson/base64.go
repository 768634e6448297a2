package awsjson

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"
	"unsafe"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/api"
)

// decodeBase64 decodes padded base64 of the standard alphabet and nothing else:
// no line breaks, no missing padding, no stray bits behind the last byte. dst may
// begin where src does, and holds at least len(src)/4*3 bytes. After an error src
// is as it was.
func decodeBase64(dst, src []byte) (int, *api.TypeError) {
	if len(src) == 0 {
		return 0, nil
	}
	// The library passes over line breaks.
	if len(src)%4 != 0 || bytes.IndexByte(src, '\n') >= 0 || bytes.IndexByte(src, '\r') >= 0 {
		return 0, blobError(src)
	}
	want := len(src) / 4 * 3
	last := [4]byte(src[len(src)-4:])
	stray := byte(0)
	if last[3] == '=' {
		want--
		stray = sextet[last[2]] & 3
		if last[2] == '=' {
			want--
			stray = sextet[last[1]] & 15
		}
	}
	var head [64]byte
	copy(head[:], src)
	n, err := base64x.StdEncoding.Decode(dst[:len(src)/4*3], src)
	if err == nil && n == want && stray == 0 {
		return n, nil
	}
	if unsafe.SliceData(dst) == unsafe.SliceData(src) {
		var at base64.CorruptInputError
		switch {
		case errors.As(err, &at):
			// The group before the mistake may be one that ends too early. Its bytes
			// are still there: what was written, with up to a word of slack, lies
			// behind what was read, except near the start.
			restore(src, min(int(at), len(src)-4)/4-1)
		case n == want:
			restore(src, len(src)/4-1)
		}
		copy(src, head[:min(len(head), len(src))])
		copy(src[len(src)-4:], last[:])
	}
	return 0, blobError(src)
}

// restore puts back the first groups of four characters of a text that has been
// decoded in place. Strict base64 is the only text its bytes can come from.
func restore(src []byte, groups int) {
	if groups > 0 {
		base64.StdEncoding.Encode(src, bytes.Clone(src[:groups*3]))
	}
}

// sextet is the value of each character of the alphabet.
var sextet = func() (t [256]byte) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	return t
}()

// blobError says what is wrong with a text that is not base64, in the service's
// words and order.
func blobError(s []byte) *api.TypeError {
	reason := "Invalid last non-pad Base64 character dectected" // sic
	if len(s)%4 != 0 {
		reason = "Base64 encoded length is expected a multiple of 4 bytes but found: " + strconv.Itoa(len(s))
	} else {
		for i, c := range s {
			bad := c != '=' && c != 'A' && sextet[c] == 0
			if bad || c == '=' && i+1 < len(s) && s[i+1] != '=' {
				reason = "Invalid Base64 character: '" + string(rune(c)) + "'"
				break
			}
		}
	}
	return &api.TypeError{Message: "'" + echo(s) + "' can not be converted to a Blob: " + reason}
}

func aliasString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
