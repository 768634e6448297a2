package firehose

import (
	"context"
	"reflect"
	"strconv"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// UpdateDestination changes the destination of an ACTIVE delivery stream, which
// stays ACTIVE. What was put before is delivered as it was configured then; what
// follows, under the next version. The call must name the current version, else
// ConcurrentModification.
//
// An update of the same type replaces the members that it has; those of S3
// destinations, of format conversion, of partitioning and of an HTTP endpoint
// are merged one by one. Another type needs its whole configuration. Rules are
// checked on the result.
func (s *Service) UpdateDestination(ctx context.Context, call *api.Call, in *firehose.UpdateDestinationInput) (*firehose.UpdateDestinationOutput, error) {
	start := s.now()
	for {
		st, err := s.changeable(call, in.DeliveryStreamName)
		if err != nil {
			return nil, err
		}
		if given, current := api.Val(in.CurrentDeliveryStreamVersionId), strconv.Itoa(st.record.Version); given != current {
			return nil, &firehose.ConcurrentModificationException{Message: "Cannot update firehose: " + st.name + " since the current version id: " + current + " and specified version id: " + given + " do not match"}
		}
		if id := api.Val(in.DestinationId); id != destinationID {
			return nil, invalidArgument("Destination Id %s not found", id)
		}
		k, update, err := updateOf(in)
		if err != nil {
			return nil, err
		}
		old, err := s.revealed(st)
		if err != nil {
			return nil, err
		}
		next, err := merge(old, k, update)
		if err != nil {
			return nil, err
		}
		if err := checkChange(old, next); err != nil {
			return nil, err
		}
		if err := s.validate(ctx, call, st.record.Type, next); err != nil {
			return nil, err
		}
		record := st.record
		record.Version++
		record.UpdatedAt = millis(s.now())
		s.conceal(&record, next)
		conflict, err := s.commit(ctx, st.update(record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			// The change is stored, so the caller's going away does not stop it, and
			// a failure is left to Run.
			if err := s.reconcile(context.WithoutCancel(ctx), record.ID); err != nil {
				s.logger.Error("update a delivery stream; it is tried again", "stream", st.name, "account", st.account, "error", err)
				s.nudge()
			}
			st.series.Add(updateRequests, 1)
			st.series.Add(updateLatency, since(start, s.now()))
			return &firehose.UpdateDestinationOutput{}, nil
		}
	}
}

// updateOf is the one update of a request. That of an S3 destination of the old
// form is one of the extended form.
func updateOf(in *firehose.UpdateDestinationInput) (kind, any, error) {
	all := []struct {
		kind   kind
		update any
	}{
		{kindS3, in.S3DestinationUpdate}, {kindS3, in.ExtendedS3DestinationUpdate}, {kindRedshift, in.RedshiftDestinationUpdate},
		{kindElasticsearch, in.ElasticsearchDestinationUpdate}, {kindOpenSearch, in.AmazonopensearchserviceDestinationUpdate},
		{kindServerless, in.AmazonOpenSearchServerlessDestinationUpdate}, {kindSplunk, in.SplunkDestinationUpdate},
		{kindHTTP, in.HttpEndpointDestinationUpdate}, {kindSnowflake, in.SnowflakeDestinationUpdate}, {kindIceberg, in.IcebergDestinationUpdate},
	}
	n, found := 0, 0
	for i, u := range all {
		if !reflect.ValueOf(u.update).IsNil() {
			n, found = n+1, i
		}
	}
	if n != 1 {
		return 0, nil, invalidArgument("Exactly one destination configuration is supported for a Firehose")
	}
	return all[found].kind, all[found].update, nil
}

// unswitchable are the kinds of destinations that cannot become another, and
// that no other can become.
var unswitchable = map[kind]bool{kindElasticsearch: true, kindOpenSearch: true, kindServerless: true, kindHTTP: true}

// merge is the configuration that follows from an update.
func merge(old *destination, k kind, update any) (*destination, error) {
	if old.kind() == k {
		next := old.clone()
		// One of the two names of a cluster takes the other's place.
		switch u := update.(type) {
		case *firehose.ElasticsearchDestinationUpdate:
			oneName(&next.Elasticsearch.DomainARN, &next.Elasticsearch.ClusterEndpoint, u.DomainARN, u.ClusterEndpoint)
		case *firehose.AmazonopensearchserviceDestinationUpdate:
			oneName(&next.OpenSearch.DomainARN, &next.OpenSearch.ClusterEndpoint, u.DomainARN, u.ClusterEndpoint)
		}
		mergeShape(next.config(), update)
		return next, required(next)
	}
	if unswitchable[k] || unswitchable[old.kind()] {
		return nil, invalidArgument("The destination of a delivery stream cannot be changed from %s to %s.", old.kind(), k)
	}
	next := newDestination(k)
	copyShape(next.config(), update)
	return next, required(next)
}

// oneName forgets the stored names of a cluster if an update brings one.
func oneName(domain, endpoint **string, newDomain, newEndpoint *string) {
	if newDomain != nil || newEndpoint != nil {
		*domain, *endpoint = nil, nil
	}
}

// required reports members that the model requires of a configuration, and that
// an update of another type must bring.
func required(d *destination) error {
	var v api.Validator
	v.Enter([...]string{"extendedS3DestinationUpdate", "redshiftDestinationUpdate", "elasticsearchDestinationUpdate", "amazonopensearchserviceDestinationUpdate",
		"amazonOpenSearchServerlessDestinationUpdate", "splunkDestinationUpdate", "httpEndpointDestinationUpdate", "snowflakeDestinationUpdate", "icebergDestinationUpdate"}[d.kind()])
	d.config().(api.Shape).Validate(&v)
	return v.Err()
}

// checkChange refuses changes of what is fixed when a delivery stream is
// created, and of what can be changed in one direction only.
func checkChange(old, next *destination) error {
	if old.kind() != next.kind() {
		return nil
	}
	before, after := old.effective(), next.effective()
	mode := func(d *destination) string { return api.Val(d.shared().S3BackupMode) }
	oneWay := func(from string) error {
		if was, is := mode(before), mode(after); was != is && was != from {
			return invalidArgument("S3BackupMode cannot be changed from %s to %s: once it is %s, it stays so.", was, is, was)
		}
		return nil
	}
	switch next.kind() {
	case kindS3:
		partitions := func(d *destination) bool {
			p := d.ExtendedS3.DynamicPartitioningConfiguration
			return p != nil && api.Val(p.Enabled)
		}
		if was, is := partitions(before), partitions(after); was != is {
			if is {
				return invalidArgument("Dynamic Partitioning can only be enabled when the delivery stream is created.")
			}
			return invalidArgument("Dynamic Partitioning cannot be disabled once it is enabled.")
		}
		return oneWay(string(firehose.S3BackupModeDisabled))
	case kindRedshift:
		return oneWay(string(firehose.RedshiftS3BackupModeDisabled))
	case kindSplunk:
		return oneWay(string(firehose.SplunkS3BackupModeFailedEventsOnly))
	case kindSnowflake:
		return oneWay(string(firehose.SnowflakeS3BackupModeFailedDataOnly))
	case kindIceberg:
		if api.Val(before.Iceberg.AppendOnly) != api.Val(after.Iceberg.AppendOnly) {
			return invalidArgument("AppendOnly can only be set when the delivery stream is created.")
		}
	}
	return nil
}
