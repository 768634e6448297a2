package naming

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// PairOptions are what the rules about a pair of prefixes depend on.
type PairOptions struct {
	// Partitioning says that dynamic partitioning is enabled.
	Partitioning bool
	// Query says that there is a MetadataExtraction processor; QueryKeys are the
	// keys its query gives, nil if that cannot be told without running it.
	Query     bool
	QueryKeys []string
	// Function says that there is a Lambda processor.
	Function bool
	// Location is the time zone of timestamps; nil is UTC.
	Location *time.Location
}

// Prefix compiles the Prefix and ErrorOutputPrefix of a destination, with the
// rules of creation and update about both. Errors are in the words of the
// service, to be given as an InvalidArgumentException. Without an
// ErrorOutputPrefix, failures are named after Prefix.
func Prefix(prefix, errorPrefix string, o PairOptions) (main, failures *Template, err error) {
	main, err = ParsePrefix(prefix, Options{Partitioning: o.Partitioning, Location: o.Location})
	if err != nil {
		return nil, nil, err
	}
	if errorPrefix == "" {
		if main.Expressions() {
			return nil, nil, errors.New("ErrorOutputPrefix cannot be null or empty when Prefix contains expressions")
		}
		errorPrefix = prefix
	}
	failures, err = ParsePrefix(errorPrefix, Options{Error: true, Partitioning: o.Partitioning, Location: o.Location})
	if err != nil {
		return nil, nil, err
	}
	if !o.Partitioning {
		return main, failures, nil
	}
	queryKeys, functionKeys := main.QueryKeys(), main.FunctionKeys()
	if len(queryKeys)+len(functionKeys) == 0 {
		return nil, nil, errors.New("S3 Prefix should contain Dynamic Partitioning namespaces when Dynamic Partitioning is enabled")
	}
	if len(queryKeys) > 0 && !o.Query {
		return nil, nil, errors.New("MetadataExtraction processor must be present when Prefix contains the namespace partitionKeyFromQuery")
	}
	if len(functionKeys) > 0 && !o.Function {
		return nil, nil, errors.New("Lambda processor must be present when Prefix contains the namespace partitionKeyFromLambda")
	}
	if o.QueryKeys != nil {
		for _, key := range queryKeys {
			if !slices.Contains(o.QueryKeys, key) {
				return nil, nil, fmt.Errorf("partitionKeyFromQuery key %s of Prefix is not produced by the MetadataExtractionQuery", clip(key))
			}
		}
	}
	return main, failures, nil
}

// ObjectName makes an object's name after its prefix: the delivery stream, the
// version of its destination, an instant, and the object's id. An id of 32
// hexadecimal digits takes the form of a UUID. at is the arrival of the oldest
// record; nil for location is UTC.
func ObjectName(stream string, version int, at time.Time, location *time.Location, id, extension string) string {
	if location == nil {
		location = time.UTC
	}
	b := make([]byte, 0, len(stream)+len(extension)+72)
	b = append(b, stream...)
	b = append(b, '-')
	b = appendInt(b, int64(version), 1)
	b = append(b, '-')
	b = at.In(location).AppendFormat(b, "2006-01-02-15-04-05-")
	if len(id) == 32 {
		b = append(b, id[:8]...)
		for i := 8; i < 20; i += 4 {
			b = append(append(b, '-'), id[i:i+4]...)
		}
		b = append(append(b, '-'), id[20:]...)
	} else {
		b = append(b, id...)
	}
	return string(append(b, extension...))
}
