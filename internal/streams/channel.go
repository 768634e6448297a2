package streams

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/meta"
)

// ChannelRunner delivers the records of channels to object stores. It is what a
// channel's state depends on: what it cannot start is FAILED, with its reason.
type ChannelRunner interface {
	// StartChannel begins delivery, or goes on with a channel that has been
	// delivering before a restart or an update. The error's text becomes the
	// channel's status reason.
	StartChannel(ctx context.Context, channel kinesis.ChannelDescription) error
	// StopChannel ends delivery and returns when nothing is written any more.
	StopChannel(ctx context.Context, arn string) error
}

// noDelivery is the ChannelRunner of a server without an object store.
type noDelivery struct{}

func (noDelivery) StartChannel(context.Context, kinesis.ChannelDescription) error {
	return errNoObjectStore
}
func (noDelivery) StopChannel(context.Context, string) error { return nil }

var errNoObjectStore = deliveryError("No object store is configured on this server, so nothing is delivered.")

type deliveryError string

func (e deliveryError) Error() string { return string(e) }

const (
	// defaultFreshness is the age, in seconds, at which a channel delivers what
	// it has.
	defaultFreshness = 300
	// defaultErrorPrefix is where undeliverable records go in the destination
	// bucket of a channel without a dead-letter bucket.
	defaultErrorPrefix = "errors/"
	// maxChannelReason is the model's bound on ChannelStatusReason.
	maxChannelReason = 2048
)

// channelRecord is a channel as it is stored.
type channelRecord struct {
	Account, Region, Name, ID, ARN string

	Status    kinesis.ChannelStatus
	Reason    string `json:",omitempty"`
	Due       int64  `json:",omitempty"` // when the status changes, milliseconds; 0 if it does not
	CreatedAt int64  // milliseconds

	StreamID uint64
	Stream   string // its ARN
	StreamAt int64  // its creation, milliseconds

	Role       string
	Record     *kinesis.RecordConfiguration              `json:",omitempty"`
	S3         *kinesis.S3DestinationConfiguration       `json:",omitempty"`
	S3Tables   *kinesis.S3TablesDestinationConfiguration `json:",omitempty"`
	Encryption *kinesis.ChannelEncryptionConfiguration   `json:",omitempty"`
	Logging    *kinesis.CloudWatchLogs                   `json:",omitempty"`
}

// channel is one state of a channel; immutable.
type channel struct {
	channelRecord
	key     string
	version meta.Version
}

func newChannelID() string {
	var b [12]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func (ch *channel) row() meta.Row[channelRecord] {
	return meta.Row[channelRecord]{Key: ch.key, Version: ch.version, Value: ch.channelRecord}
}

func (ch *channel) resource() resource {
	return resource{arn: ch.ARN, account: ch.Account, what: "channel " + ch.Name, guard: channelTable.Update(ch.row()),
		busy: invalidArgument("ResourceARN %s is the ARN of a channel, which has no resource policy.", ch.ARN)}
}

// describe is the channel on the wire.
func (r *channelRecord) describe() *kinesis.ChannelDescription {
	d := &kinesis.ChannelDescription{
		ChannelName: &r.Name, ChannelARN: &r.ARN, ChannelId: &r.ID, ChannelStatus: &r.Status,
		ChannelCreationTimestamp: api.Ptr(time.UnixMilli(r.CreatedAt)), ServiceExecutionRoleARN: &r.Role,
		StreamConfigurationList: []kinesis.ChannelStreamDescription{{
			StreamARN: &r.Stream, StreamCreationTimestamp: api.Ptr(time.UnixMilli(r.StreamAt)), RecordConfiguration: r.Record,
		}},
		EncryptionConfiguration: r.Encryption, LoggingConfiguration: &kinesis.ChannelLoggingConfiguration{CloudWatchLogs: r.Logging},
	}
	if r.Reason != "" {
		d.ChannelStatusReason = &r.Reason
	}
	if r.S3 != nil {
		d.S3DestinationConfiguration = &kinesis.S3DestinationDescription{
			DataFreshnessInSeconds: r.S3.DataFreshnessInSeconds, DeadLetterQueueS3Configuration: r.S3.DeadLetterQueueS3Configuration,
			StorageConfiguration: r.S3.StorageConfiguration,
		}
	}
	if r.S3Tables != nil {
		d.S3TablesDestinationConfiguration = &kinesis.S3TablesDestinationDescription{
			DataFreshnessInSeconds: r.S3Tables.DataFreshnessInSeconds, DeadLetterQueueS3Configuration: r.S3Tables.DeadLetterQueueS3Configuration,
			S3TablesConfigurationList: r.S3Tables.S3TablesConfigurationList,
		}
	}
	return d
}

// setLogging fills in the defaults of a logging configuration.
func (r *channelRecord) setLogging(enabled *bool, group, stream *string) {
	r.Logging = &kinesis.CloudWatchLogs{Enabled: api.Ptr(api.Val(enabled)), LogGroupName: group, LogStreamName: stream}
	if group == nil {
		r.Logging.LogGroupName = api.Ptr("/aws/kinesis/" + r.Name + "/" + r.ID)
	}
	if stream == nil {
		r.Logging.LogStreamName = api.Ptr("DestinationDelivery")
	}
}

// resolveChannel finds a channel of the call's region by its ARN.
func (s *Service) resolveChannel(call *api.Call, arn *string) (*channel, error) {
	region, account, kind, ok := parseARN(api.Val(arn))
	if !ok {
		return nil, invalidArgument("ChannelARN %s is not the ARN of a channel.", api.Val(arn))
	}
	if ch := s.registry.channel(*arn); ch != nil && region == call.Region {
		return ch, nil
	}
	return nil, resourceNotFound("Channel %s, account %s not found.", kind[min(len(kind), len("channel/")):], account)
}

// channelCount is how many channels a stream has, in any state.
func (s *Service) channelCount(st *stream) int {
	n := 0
	for _, ch := range s.registry.channelsOf(accountName{st.account, st.region}) {
		if ch.StreamID == st.id {
			n++
		}
	}
	return n
}

// settleChannel finishes a channel's transition if there is no delay; see
// settle.
func (s *Service) settleChannel(ctx context.Context, arn string) {
	if s.stateDelay > 0 {
		return
	}
	ch := s.registry.channel(arn)
	if ch == nil {
		return
	}
	if err := s.finishChannel(context.WithoutCancel(ctx), ch); err != nil {
		s.logger.Error("finish a change of a channel; it is tried again", "channel", arn, "error", err)
		s.nudge()
	}
}

// finishChannel starts or stops a channel's delivery and stores what came of it.
func (s *Service) finishChannel(ctx context.Context, ch *channel) error {
	for {
		ch := s.registry.channel(ch.ARN)
		if ch == nil || ch.Due == 0 {
			return nil
		}
		row := ch.row()
		var op meta.Op
		more := []meta.Op(nil)
		if ch.Status == kinesis.ChannelStatusDeleting {
			if err := s.channels.StopChannel(ctx, ch.ARN); err != nil {
				return err
			}
			op = channelTable.Delete(row)
			more = append(more, meta.Op{Key: attributesTable.Key(ch.ARN), Delete: true})
		} else {
			row.Value.Status, row.Value.Reason, row.Value.Due = kinesis.ChannelStatusActive, "", 0
			if err := s.channels.StartChannel(ctx, *row.Value.describe()); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				reason := err.Error()
				row.Value.Status, row.Value.Reason = kinesis.ChannelStatusFailed, reason[:min(len(reason), maxChannelReason)]
			}
			op = channelTable.Update(row)
		}
		conflict, err := s.commit(ctx, append(more, op)...)
		if err != nil || !conflict {
			return err
		}
	}
}

// resumeChannels goes on with the delivery of ACTIVE channels after a start.
func (s *Service) resumeChannels(ctx context.Context) {
	for _, ch := range s.registry.allChannels() {
		if ch.Status != kinesis.ChannelStatusActive {
			continue
		}
		if err := s.channels.StartChannel(ctx, *ch.describe()); err != nil && ctx.Err() == nil {
			row := ch.row()
			reason := err.Error()
			row.Value.Status, row.Value.Reason = kinesis.ChannelStatusFailed, reason[:min(len(reason), maxChannelReason)]
			if _, err := s.commit(ctx, channelTable.Update(row)); err != nil {
				s.logger.Error("store that a channel failed", "channel", ch.ARN, "error", err)
			}
		}
	}
}
