package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/wire/awsjson"
)

// Reply is the answer to Send.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// Send performs a request of a REST protocol (Lambda, S3): target is the path,
// escaped, and the query. A status from 300 up is an *Error; those that may pass
// are tried again.
func (c *Client) Send(ctx context.Context, service, method, target string, header http.Header, body []byte) (*Reply, error) {
	var reply *Reply
	_, err := c.attempt(ctx, func() ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.endpoint.Scheme+"://"+c.endpoint.Host+c.endpoint.Path, "/")+target, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		for name, values := range header {
			req.Header[name] = values
		}
		if c.config.UserAgent != "" {
			req.Header.Set("User-Agent", c.config.UserAgent)
		}
		if service == "s3" {
			sum := sha256.Sum256(body)
			req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		}
		c.sign(req, body, service)
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		if resp.StatusCode >= 300 {
			kind, _, _ := strings.Cut(resp.Header.Get("X-Amzn-Errortype"), ":")
			return nil, errorReply(resp, func(body []byte) (code, message string) {
				if strings.HasPrefix(strings.TrimSpace(string(body)), "<") {
					return parseXMLError(body)
				}
				var e struct{ Message string }
				if json.Unmarshal(body, &e) != nil {
					return kind, ""
				}
				return kind, e.Message
			})
		}
		reply = &Reply{Status: resp.StatusCode, Header: resp.Header}
		reply.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxReplyBytes+1))
		if err == nil && len(reply.Body) > maxReplyBytes {
			err = fmt.Errorf("the reply exceeds %d bytes", maxReplyBytes)
		}
		return nil, err
	})
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// Parse reads a JSON document, as SDKs take it for a call's input, into a shape.
// Members that the shape does not have are left out.
func Parse(document []byte, into api.Shape) error { return awsjson.Unmarshal(document, into) }
