package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
)

// Chunks verifies a body that is signed chunk by chunk, each signature covering
// the one before it. One goroutine uses it.
type Chunks struct {
	key      [sha256.Size]byte
	head     string // time and scope, a line each
	previous string
}

// Chunks returns what verifies the chunks of a request that Verify has passed
// with one of the signed streaming forms.
func (res *Result) Chunks() *Chunks {
	return &Chunks{
		key:      res.key,
		head:     res.timeText + "\n" + res.Date + "/" + res.Region + "/" + res.Service + "/" + terminator + "\n",
		previous: res.signature,
	}
}

// Next tells whether signature is that of the next chunk, whose bytes have the
// given SHA-256. The last chunk is empty.
func (c *Chunks) Next(sum [sha256.Size]byte, signature string) bool {
	return c.check(algorithm+"-PAYLOAD\n"+c.head+c.previous+"\n"+emptyHash+"\n"+hex.EncodeToString(sum[:]), signature)
}

// Trailer tells whether signature is that of the trailing headers, whose text,
// a line "name:value\n" each, has the given SHA-256.
func (c *Chunks) Trailer(sum [sha256.Size]byte, signature string) bool {
	return c.check(algorithm+"-TRAILER\n"+c.head+c.previous+"\n"+hex.EncodeToString(sum[:]), signature)
}

func (c *Chunks) check(text, signature string) bool {
	h := hmac.New(sha256.New, c.key[:])
	h.Write([]byte(text))
	want := hex.EncodeToString(h.Sum(nil))
	if subtle.ConstantTimeCompare([]byte(want), []byte(signature)) != 1 {
		return false
	}
	c.previous = want
	return true
}
