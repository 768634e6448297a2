package firehose

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/meta"
)

// The tables of this package.
//
//	firehose.stream/{account}/{region}/{name}
//	firehose.account/{account}/{region}
const watchPrefix = "firehose."

var (
	streamTable  = meta.Table[streamRecord]{Prefix: "firehose.stream", Format: 1}
	accountTable = meta.Table[accountRecord]{Prefix: "firehose.account", Format: 1}
)

// streamRecord is a delivery stream as it is stored. Times are milliseconds
// since 1970.
type streamRecord struct {
	ID        string                        `json:"id"` // unique among all that ever were
	Type      firehose.DeliveryStreamType   `json:"type"`
	Status    firehose.DeliveryStreamStatus `json:"status"`
	Failure   *failureRecord                `json:"failure,omitempty"`
	CreatedAt int64                         `json:"createdAt"`
	UpdatedAt int64                         `json:"updatedAt,omitempty"`
	// Version counts updates of the destination, from 1.
	Version     int          `json:"version"`
	Source      sourceRecord `json:"source"`
	Destination *destination `json:"destination"`
	// Secrets are the destination's secrets by name, as JSON, sealed. They are
	// not in Destination.
	Secrets    []byte            `json:"secrets,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Encryption encryptionRecord  `json:"encryption"`
	// EncryptionCalls are the latest starts and stops of encryption.
	EncryptionCalls []int64     `json:"encryptionCalls,omitempty"`
	Pending         *transition `json:"pending,omitempty"`
	// Forced says that the deletion does not wait for the key's grant.
	Forced bool `json:"forced,omitempty"`
}

type failureRecord struct {
	Type    firehose.DeliveryStreamFailureType `json:"type"`
	Details string                             `json:"details"`
}

// sourceRecord is where records come from; at most one member is set.
type sourceRecord struct {
	DirectPut *firehose.DirectPutSourceConfiguration     `json:"directPut,omitempty"`
	Kinesis   *firehose.KinesisStreamSourceConfiguration `json:"kinesis,omitempty"`
	MSK       *mskSource                                 `json:"msk,omitempty"`
}

// mskSource is the source block of a topic, its time in milliseconds.
type mskSource struct {
	ClusterARN   string `json:"clusterArn"`
	Topic        string `json:"topic"`
	RoleARN      string `json:"roleArn"`
	Connectivity string `json:"connectivity"`
	ReadFrom     *int64 `json:"readFrom,omitempty"`
}

// encryptionRecord is how records are encrypted at rest.
type encryptionRecord struct {
	Status  firehose.DeliveryStreamEncryptionStatus `json:"status,omitempty"` // empty is DISABLED
	KeyType firehose.KeyType                        `json:"keyType,omitempty"`
	KeyARN  string                                  `json:"keyArn,omitempty"`
	// DataKey seals what is put from now on; it stays in force while another key
	// is being enabled, and if that fails.
	DataKey string `json:"dataKey,omitempty"`
	// DataKeyARN is the customer's key that DataKey was made under.
	DataKeyARN string         `json:"dataKeyArn,omitempty"`
	Failure    *failureRecord `json:"failure,omitempty"`
	// Due is when ENABLING or DISABLING ends.
	Due int64 `json:"due,omitempty"`
}

// transition is what is to happen to a delivery stream, and when.
type transition struct {
	Kind string `json:"kind"`
	Due  int64  `json:"due"`
}

// The kinds of transitions.
const (
	creating = "create"
	deleting = "delete"
)

// accountRecord makes commits count against an account's quotas: it is written
// by whatever adds a delivery stream.
type accountRecord struct {
	Changes uint64 `json:"changes"`
}

// streamName is a delivery stream's place.
type streamName struct{ account, region, name string }

func (n streamName) arn() string {
	return "arn:aws:firehose:" + n.region + ":" + n.account + ":deliverystream/" + n.name
}

// stream is one state of one incarnation of a delivery stream; immutable.
type stream struct {
	streamName
	arn     string
	record  streamRecord
	version meta.Version
	// encrypted says that what is put now is reported as encrypted.
	encrypted bool
	// onlyLogs says that records must come from CloudWatch Logs.
	onlyLogs bool
	quota    uint64 // names its bucket
	series   delivery.Series
}

func newStream(name streamName, record streamRecord, version meta.Version) (*stream, error) {
	if record.Destination == nil || record.ID == "" {
		return nil, errors.New("a delivery stream without destination or id")
	}
	st := &stream{
		streamName: name, arn: name.arn(), record: record, version: version,
		encrypted: record.Encryption.Status == firehose.DeliveryStreamEncryptionStatusEnabled,
	}
	if p := record.Destination.shared().ProcessingConfiguration; processes(p) {
		for _, processor := range p.Processors {
			st.onlyLogs = st.onlyLogs || api.Val(processor.Type) == firehose.ProcessorTypeDecompression
		}
	}
	for i := range len(record.ID) {
		st.quota = st.quota*31 + uint64(record.ID[i])
	}
	return st, nil
}

// processes reports whether processing is switched on.
func processes(p *firehose.ProcessingConfiguration) bool {
	return p != nil && (p.Enabled == nil && len(p.Processors) > 0 || api.Val(p.Enabled))
}

// update is the operation that writes a record if the delivery stream is still
// as it is here.
func (st *stream) update(record streamRecord) meta.Op {
	return streamTable.Update(meta.Row[streamRecord]{Key: streamTable.Key(st.account, st.region, st.name), Version: st.version, Value: record})
}

// commit writes operations at once; conflict means that something has changed
// since it was read.
func (s *Service) commit(ctx context.Context, ops ...meta.Op) (conflict bool, err error) {
	_, err = s.meta.Commit(ctx, ops...)
	var lost *meta.ConflictError
	if errors.As(err, &lost) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("commit delivery stream metadata: %w", err)
	}
	return false, nil
}

// resolve finds the delivery stream that a call names.
func (s *Service) resolve(call *api.Call, name *string) (*stream, error) {
	st := s.registry.stream(streamName{call.Account, call.Region, api.Val(name)})
	if st == nil {
		return nil, notFound(call.Account, api.Val(name))
	}
	return st, nil
}

// changeable is resolve for calls that need an ACTIVE delivery stream.
func (s *Service) changeable(call *api.Call, name *string) (*stream, error) {
	st, err := s.resolve(call, name)
	if err != nil {
		return nil, err
	}
	if st.record.Status != firehose.DeliveryStreamStatusActive {
		return nil, notActive(st)
	}
	return st, nil
}

// parseStreamARN reads arn:{partition}:firehose:{region}:{account}:deliverystream/{name}.
func parseStreamARN(arn string) (streamName, bool) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "firehose" || len(parts[4]) != 12 {
		return streamName{}, false
	}
	name, ok := strings.CutPrefix(parts[5], "deliverystream/")
	return streamName{parts[4], parts[3], name}, ok && name != ""
}

func millis(t time.Time) int64 { return t.UnixMilli() }
