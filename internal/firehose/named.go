package firehose

import (
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/httpendpoint"
	"github.com/millrace/millrace/internal/firehose/dest/splunk"
)

// namedTypes are the types of destinations that an operator can name.
func namedTypes() map[string]namedType {
	return map[string]namedType{
		"http": typeOf(delivery.KindHTTPEndpoint, func(a *assembly, c httpendpoint.Config) (dest.Destination, error) {
			return httpendpoint.New(c, httpendpoint.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
		}),
		"splunk": typeOf(delivery.KindSplunk, func(a *assembly, c splunk.Config) (dest.Destination, error) {
			return splunk.New(c, splunk.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
		}),
	}
}

// endpointTypes check changes to endpoints that the API names.
func endpointTypes() map[string]func(config []byte) error {
	check := func(c any) func([]byte) error { return func(config []byte) error { return overlay(c, config) } }
	return map[string]func([]byte) error{
		"http":   check(new(httpendpoint.Config)),
		"splunk": check(new(splunk.Config)),
	}
}
