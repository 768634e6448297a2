package firehose

import (
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/naming"
)

// prefixes checks the expressions of all prefixes.
func (c *checker) prefixes() error {
	if e := c.d.ExtendedS3; e != nil {
		if _, _, err := mainPrefixes(e); err != nil {
			return invalidArgument("%s", err.Error())
		}
	}
	for _, block := range c.s3() {
		if _, _, err := naming.Prefix(api.Val(block.Prefix), api.Val(block.ErrorOutputPrefix), naming.PairOptions{}); err != nil {
			return invalidArgument("%s", err.Error())
		}
	}
	return nil
}

// mainPrefixes compiles the prefixes of an extended S3 destination.
func mainPrefixes(e *firehose.ExtendedS3DestinationConfiguration) (objects, failures *naming.Template, err error) {
	zone, err := location(api.Val(e.CustomTimeZone))
	if err != nil {
		return nil, nil, err
	}
	steps, err := chainConfig(&destination{ExtendedS3: e})
	if err != nil {
		return nil, nil, err
	}
	o := naming.PairOptions{Partitioning: partitions(e), Location: zone, Function: steps.Function != nil}
	if steps.Query != nil {
		o.Query, o.QueryKeys = true, steps.Query.Keys()
	}
	return naming.Prefix(api.Val(e.Prefix), api.Val(e.ErrorOutputPrefix), o)
}

// zoneOf is the time zone of a destination that has been checked.
func zoneOf(e *firehose.ExtendedS3DestinationConfiguration) *time.Location {
	zone, err := location(api.Val(e.CustomTimeZone))
	if err != nil {
		return time.UTC
	}
	return zone
}
