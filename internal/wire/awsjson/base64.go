package awsjson

import (
	"encoding/base64"
	"strconv"
	"unsafe"

	"github.com/cloudwego/base64x"

	"github.com/millrace/millrace/internal/api"
)

// decodeBase64 decodes padded base64 of the standard alphabet and nothing else:
// no line breaks, no missing padding, no stray bits behind the last byte. dst may
// begin where src does, and is then overwritten, and holds at least
// len(src)/4*3 bytes.
func decodeBase64(dst, src []byte) (int, *api.TypeError) {
	if len(src) == 0 {
		return 0, nil
	}
	if len(src)%4 != 0 {
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
	n, err := base64x.StdEncoding.Decode(dst[:len(src)/4*3], src)
	// The library passes over line breaks; they show in the length.
	if err == nil && n == want && stray == 0 {
		return n, nil
	}
	return 0, blobError(original(dst[:n], src, last))
}

// sextet is the value of each character of the alphabet.
var sextet = func() (t [256]byte) {
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		t[c] = byte(i)
	}
	return t
}()

// original restores a text whose beginning has been decoded in place.
func original(decoded, src []byte, last [4]byte) []byte {
	text := append([]byte(nil), src...)
	copy(text[len(text)-4:], last[:])
	if len(decoded) > 0 && unsafe.SliceData(decoded) == unsafe.SliceData(src) {
		whole := len(decoded) / 3
		base64.StdEncoding.Encode(text[:whole*4], decoded[:whole*3])
	}
	return text
}

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
