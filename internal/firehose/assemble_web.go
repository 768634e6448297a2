package firehose

import (
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/httpendpoint"
	"github.com/millrace/millrace/internal/firehose/dest/splunk"
)

// secretARN is the secret that takes the place of inline credentials.
func secretARN(c *firehose.SecretsManagerConfiguration) string {
	if !usesSecret(c) {
		return ""
	}
	return api.Val(c.SecretARN)
}

// http builds an HTTP endpoint, or the operator's destination that its URL
// names.
func (a *assembly) http() (dest.Destination, error) {
	address := *a.d.HTTP.EndpointConfiguration.Url
	if _, named, ok, err := a.parts.Operator.named(address); err != nil {
		return nil, err
	} else if ok {
		a.out.Kind, a.out.ErrorType = named.of.kind, delivery.KindHTTPEndpoint.ErrorType()
		return named.of.build(a, named.config)
	}
	a.out.Kind = delivery.KindHTTPEndpoint
	c, err := a.parts.httpConfig(a.d.HTTP)
	if err != nil {
		return nil, err
	}
	return httpendpoint.New(c, httpendpoint.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets, Current: a.currentHTTP(c)})
}

func (p *Parts) httpConfig(c *firehose.HttpEndpointDestinationConfiguration) (httpendpoint.Config, error) {
	e := c.EndpointConfiguration
	config := httpendpoint.Config{
		URL: *e.Url, Name: api.Val(e.Name), AccessKey: api.Val(e.AccessKey), Secret: secretARN(c.SecretsManagerConfiguration),
	}
	if r := c.RequestConfiguration; r != nil {
		config.GZIP = api.Val(r.ContentEncoding) == firehose.ContentEncodingGzip
		for _, attribute := range r.CommonAttributes {
			config.Attributes = append(config.Attributes, httpendpoint.Attribute{Name: *attribute.AttributeName, Value: *attribute.AttributeValue})
		}
	}
	return config, p.Operator.adjust(&config, *e.Url)
}

// currentHTTP gives the configuration in force: what is being retried goes where
// the newest update says.
func (a *assembly) currentHTTP(first httpendpoint.Config) func() httpendpoint.Config {
	if a.id == "" {
		return nil
	}
	return func() httpendpoint.Config {
		if d := a.current(); d != nil && d.HTTP != nil {
			if c, err := a.parts.httpConfig(d.HTTP); err == nil {
				return c
			}
		}
		return first
	}
}

func (a *assembly) splunk() (dest.Destination, error) {
	a.out.Kind = delivery.KindSplunk
	c, err := a.parts.splunkConfig(a.d.Splunk)
	if err != nil {
		return nil, err
	}
	var current func() splunk.Config
	if a.id != "" {
		current = func() splunk.Config {
			if d := a.current(); d != nil && d.Splunk != nil {
				if c, err := a.parts.splunkConfig(d.Splunk); err == nil {
					return c
				}
			}
			return c
		}
	}
	return splunk.New(c, splunk.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets, Current: current})
}

func (p *Parts) splunkConfig(c *firehose.SplunkDestinationConfiguration) (splunk.Config, error) {
	config := splunk.Config{
		Endpoint: *c.HECEndpoint, Type: string(*c.HECEndpointType), Token: api.Val(c.HECToken), Secret: secretARN(c.SecretsManagerConfiguration),
		AckTimeout: time.Duration(*c.HECAcknowledgmentTimeoutInSeconds) * time.Second,
	}
	return config, p.Operator.adjust(&config, *c.HECEndpoint)
}
