package firehose

import (
	"errors"
	"strings"

	"github.com/millrace/millrace/internal/firehose/compress"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/file"
	"github.com/millrace/millrace/internal/firehose/dest/httpendpoint"
	"github.com/millrace/millrace/internal/firehose/dest/iceberg"
	"github.com/millrace/millrace/internal/firehose/dest/kafka"
	"github.com/millrace/millrace/internal/firehose/dest/opensearch"
	"github.com/millrace/millrace/internal/firehose/dest/postgres"
	"github.com/millrace/millrace/internal/firehose/dest/redshift"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/dest/snowflake"
	"github.com/millrace/millrace/internal/firehose/dest/splunk"
	datastream "github.com/millrace/millrace/internal/firehose/dest/stream"
	"github.com/millrace/millrace/internal/firehose/encode"
	"github.com/millrace/millrace/internal/firehose/naming"
)

// bucketConfig is a destination of type s3: objects as the API has no words for
// them.
type bucketConfig struct {
	Bucket      string `yaml:"bucket"`
	Prefix      string `yaml:"prefix"`
	TimeZone    string `yaml:"time_zone"`
	Compression string `yaml:"compression"`
	Extension   string `yaml:"extension"`
	// Delimiter goes behind every record that does not end with it.
	Delimiter string         `yaml:"delimiter"`
	KMSKey    string         `yaml:"kms_key"`
	Encode    *encode.Config `yaml:"encode"`
}

// fileConfig is a destination of type file.
type fileConfig struct {
	file.Config `yaml:",inline"`
	Encode      *encode.Config `yaml:"encode"`
}

// encoder makes the converter of a format of the operator's; nil writes records
// as they are.
func (a *assembly) encoder(c *encode.Config) (s3.Converter, error) {
	if c == nil {
		return nil, nil
	}
	a.out.Converts = true
	return encode.New(*c)
}

func (a *assembly) namedBucket(c bucketConfig) (dest.Destination, error) {
	if c.Bucket == "" {
		return nil, errors.New("a destination of type s3 needs a bucket")
	}
	if a.parts.Objects == nil {
		return nil, errors.New("this server has no object store")
	}
	zone, err := location(c.TimeZone)
	if err != nil {
		return nil, err
	}
	prefix, err := naming.ParsePrefix(c.Prefix, naming.Options{Location: zone})
	if err != nil {
		return nil, err
	}
	format := compress.None
	if c.Compression != "" {
		if format, err = compress.Parse(c.Compression); err != nil {
			return nil, err
		}
	}
	converter, err := a.encoder(c.Encode)
	if err != nil {
		return nil, err
	}
	// The operator's own bucket is written with the operator's rights.
	return s3.New(s3.Config{
		Store: a.parts.Objects, Bucket: c.Bucket, Prefix: prefix, Location: zone, Compression: format, Extension: c.Extension, Converter: converter,
		Delimiter: []byte(strings.ReplaceAll(c.Delimiter, `\n`, "\n")), KMSKey: c.KMSKey, ContentEncoding: a.parts.ContentEncoding,
	}), nil
}

// namedTypes are the types of destinations that an operator can name.
func namedTypes() map[string]namedType {
	return map[string]namedType{
		"file": typeOf(delivery.KindOther, func(a *assembly, c fileConfig) (dest.Destination, error) {
			converter, err := a.encoder(c.Encode)
			if err != nil {
				return nil, err
			}
			return file.New(c.Config, converter)
		}),
		"s3": typeOf(delivery.KindS3, (*assembly).namedBucket),
		"kafka": typeOf(delivery.KindOther, func(a *assembly, c kafka.Config) (dest.Destination, error) {
			return kafka.New(c, kafka.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
		}),
		"stream": typeOf(delivery.KindOther, func(a *assembly, c datastream.Config) (dest.Destination, error) {
			if a.parts.OpenStream == nil {
				return nil, errors.New("this server has no data streams")
			}
			return datastream.New(c, datastream.Deps{Open: a.parts.OpenStream})
		}),
		"postgresql": typeOf(delivery.KindOther, func(a *assembly, c postgres.Config) (dest.Destination, error) {
			return postgres.New(c, postgres.Deps{Dial: a.parts.Policy.DialContext})
		}),
		"opensearch": typeOf(delivery.KindOpenSearch, func(a *assembly, c opensearch.Config) (dest.Destination, error) {
			c.StreamARN = a.stream.arn()
			a.out.Retry.FromFirstAttempt = true
			return opensearch.New(c, opensearch.Deps{Policy: a.parts.Policy, Credentials: a.parts.Sign})
		}),
		"http": typeOf(delivery.KindHTTPEndpoint, func(a *assembly, c httpendpoint.Config) (dest.Destination, error) {
			return httpendpoint.New(c, httpendpoint.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
		}),
		"splunk": typeOf(delivery.KindSplunk, func(a *assembly, c splunk.Config) (dest.Destination, error) {
			return splunk.New(c, splunk.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
		}),
		"snowflake": typeOf(delivery.KindSnowflake, func(a *assembly, c snowflake.Config) (dest.Destination, error) {
			return snowflake.New(c, snowflake.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
		}),
	}
}

// endpointTypes check changes to endpoints that the API names.
func endpointTypes() map[string]func(config []byte) error {
	check := func(c any) func([]byte) error { return func(config []byte) error { return overlay(c, config) } }
	return map[string]func([]byte) error{
		"http":       check(new(httpendpoint.Config)),
		"opensearch": check(new(opensearch.Config)),
		"splunk":     check(new(splunk.Config)),
		"redshift":   check(new(redshift.Endpoint)),
		"snowflake":  check(new(snowflake.Config)),
		"iceberg":    check(new(iceberg.Catalog)),
	}
}
