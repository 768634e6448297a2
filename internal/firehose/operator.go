package firehose

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
)

// Operator is what the operator's file of destinations says: what the API has no
// words for, and what callers of the API must not choose.
//
//	destinations:                 # named; a delivery stream asks for one with the
//	  archive:                    # URL https://destinations.millrace.internal/archive
//	    type: file
//	    directory: /srv/archive
//	endpoints:                    # changes to what a delivery stream names by URL or ARN
//	  https://search.example.com:
//	    username: writer
//	topics:                       # bootstrap servers of clusters
//	  arn:aws:kafka:…:cluster/…: [broker1:9092]
type Operator struct {
	destinations map[string]namedDestination
	endpoints    map[string][]byte // YAML that goes over a destination's Config
	topics       map[string][]string
}

type namedDestination struct {
	of     namedType
	config []byte // YAML
}

// namedType is a type of named destinations.
type namedType struct {
	kind  delivery.Kind
	check func(config []byte) error
	build func(a *assembly, config []byte) (dest.Destination, error)
}

// NamedHost is the host of URLs that name the operator's destinations.
const NamedHost = "destinations.millrace.internal"

// typeOf makes a namedType of a destination's Config and constructor.
func typeOf[C any](kind delivery.Kind, build func(a *assembly, c C) (dest.Destination, error)) namedType {
	return namedType{
		kind: kind,
		check: func(config []byte) error {
			var c C
			return overlay(&c, config)
		},
		build: func(a *assembly, config []byte) (dest.Destination, error) {
			var c C
			if err := overlay(&c, config); err != nil {
				return nil, err
			}
			return build(a, c)
		},
	}
}

// overlay reads YAML into c; what it does not mention stays. Keys that c does
// not have are errors.
func overlay(c any, config []byte) error {
	if len(config) == 0 {
		return nil
	}
	if err := unmarshal(config, c); err != nil {
		return errors.New(strings.SplitN(err.Error(), "\n", 2)[0])
	}
	return nil
}

// unmarshal reads YAML strictly. The library panics on a few texts that are not
// well-formed, found by fuzzing; that must not end a server.
func unmarshal(text []byte, v any) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not well-formed YAML: %v", r)
		}
	}()
	if err := yaml.UnmarshalWithOptions(text, v, yaml.Strict()); err != nil {
		return errors.New(yaml.FormatError(err, false, false))
	}
	return nil
}

// ParseOperator reads the file of destinations. What does not exist is an error,
// down to the last key.
func ParseOperator(text []byte) (*Operator, error) {
	var file struct {
		Destinations map[string]map[string]any `yaml:"destinations"`
		Endpoints    map[string]map[string]any `yaml:"endpoints"`
		Topics       map[string][]string       `yaml:"topics"`
	}
	if err := unmarshal(text, &file); err != nil {
		return nil, err
	}
	o := &Operator{destinations: map[string]namedDestination{}, endpoints: map[string][]byte{}, topics: file.Topics}
	for _, name := range slices.Sorted(maps.Keys(file.Destinations)) {
		settings := file.Destinations[name]
		if strings.ContainsAny(name, "/?#%@ ") || name == "" {
			return nil, fmt.Errorf("destination %q: a name has no spaces and none of / ? # %% @", name)
		}
		t, _ := settings["type"].(string)
		of, ok := namedTypes()[t]
		if !ok {
			return nil, fmt.Errorf("destination %s: type %q does not exist; there are %s", name, t, strings.Join(slices.Sorted(maps.Keys(namedTypes())), ", "))
		}
		delete(settings, "type")
		// A collector's endpoint has a type of its own.
		if t == "splunk" && settings["endpoint_type"] != nil {
			settings["type"] = settings["endpoint_type"]
			delete(settings, "endpoint_type")
		}
		config, err := settingsYAML(settings)
		if err == nil {
			err = of.check(config)
		}
		if err != nil {
			return nil, fmt.Errorf("destination %s: %w", name, err)
		}
		o.destinations[name] = namedDestination{of, config}
	}
	for _, key := range slices.Sorted(maps.Keys(file.Endpoints)) {
		config, err := settingsYAML(file.Endpoints[key])
		if err == nil {
			err = checkEndpoint(key, config)
		}
		if err != nil {
			return nil, fmt.Errorf("endpoint %s: %w", key, err)
		}
		o.endpoints[key] = config
	}
	for _, cluster := range slices.Sorted(maps.Keys(file.Topics)) {
		if !strings.HasPrefix(cluster, "arn:") || len(file.Topics[cluster]) == 0 {
			return nil, fmt.Errorf("topics: %s: the ARN of a cluster and at least one server are needed", cluster)
		}
	}
	return o, nil
}

func settingsYAML(settings map[string]any) ([]byte, error) {
	if len(settings) == 0 {
		return nil, nil
	}
	// As JSON, which is YAML too: the encoder's literal blocks lose a text that is
	// nothing but a line break.
	return yaml.MarshalWithOptions(settings, yaml.JSON())
}

// checkEndpoint checks changes to a destination against the types that the key
// can stand for.
func checkEndpoint(key string, config []byte) error {
	types := []string{"http", "splunk", "opensearch"}
	switch {
	case strings.HasPrefix(key, "jdbc:"):
		types = []string{"redshift"}
	case strings.Contains(key, ".snowflakecomputing.com"):
		types = []string{"snowflake"}
	case strings.HasPrefix(key, "s3://"), strings.HasPrefix(key, "arn:") && strings.Contains(key, ":glue:"):
		types = []string{"iceberg"}
	case strings.HasPrefix(key, "arn:"):
		types = []string{"opensearch"}
	}
	var err error
	for _, t := range types {
		of, ok := endpointTypes()[t]
		if !ok {
			continue
		}
		if err = of(config); err == nil {
			return nil
		}
	}
	return err
}

// Topics are the bootstrap servers of clusters, by ARN.
func (o *Operator) Topics() map[string][]string {
	if o == nil {
		return nil
	}
	return o.topics
}

// named finds the destination that a URL names; ok is false for other URLs.
func (o *Operator) named(address string) (name string, d namedDestination, ok bool, err error) {
	u, err := url.Parse(address)
	if err != nil || !strings.EqualFold(u.Hostname(), NamedHost) {
		return "", d, false, nil
	}
	name = strings.Trim(u.Path, "/")
	if o != nil {
		if d, ok := o.destinations[name]; ok {
			return name, d, true, nil
		}
	}
	return name, d, true, fmt.Errorf("There is no destination named %s on this server", name)
}

// adjust lays what the operator says of an endpoint over its configuration.
func (o *Operator) adjust(c any, keys ...string) error {
	if o == nil {
		return nil
	}
	for _, key := range keys {
		if config, ok := o.endpoints[key]; ok && key != "" {
			if err := overlay(c, config); err != nil {
				return fmt.Errorf("endpoint %s: %w", key, err)
			}
			return nil
		}
	}
	return nil
}
