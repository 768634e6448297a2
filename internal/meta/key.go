package meta

import (
	"fmt"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// Key joins parts into a key that no other parts make: what could be mistaken
// for a separator is escaped, see docs/formats/metadata.md. Listing Key(a, b)
// with a slash behind it finds the keys that continue these parts, and nothing
// else.
func Key(parts ...string) string {
	var b strings.Builder
	for i, part := range parts {
		if i > 0 {
			b.WriteByte('/')
		}
		if part == "" {
			b.WriteByte('%')
		}
		for j := range len(part) {
			if c := part[j]; c == '%' || c == '/' || c < 0x20 || c == 0x7f {
				b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
			} else {
				b.WriteByte(c)
			}
		}
	}
	return b.String()
}

// SplitKey returns the parts that Key joined, or an error for a key that is not
// of its making.
func SplitKey(key string) ([]string, error) {
	parts := strings.Split(key, "/")
	for i, part := range parts {
		if part == "%" {
			parts[i] = ""
			continue
		}
		if strings.Contains(part, "%") {
			parts[i] = unescape(part)
		}
		if parts[i] == "" {
			return nil, fmt.Errorf("metadata key %q has an empty part", key)
		}
	}
	if Key(parts...) != key {
		return nil, fmt.Errorf("metadata key %q is not well-formed", key)
	}
	return parts, nil
}

// unescape undoes Key's escapes and leaves alone what is none; that Key gives
// back the same tells the two apart.
func unescape(part string) string {
	var b strings.Builder
	for i := 0; i < len(part); i++ {
		if part[i] == '%' && i+2 < len(part) {
			high, low := strings.IndexByte(upperHex, part[i+1]), strings.IndexByte(upperHex, part[i+2])
			if high >= 0 && low >= 0 {
				b.WriteByte(byte(high<<4 | low))
				i += 2
				continue
			}
		}
		b.WriteByte(part[i])
	}
	return b.String()
}
