package delivery

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/naming"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/firehose/record"
)

// Definition is one version of a delivery stream, put together from its
// configuration. It is not changed after Apply.
type Definition struct {
	// ID is unique among all delivery streams that ever were, at most 64 bytes.
	ID                         string
	ARN, Name, Account, Region string
	// Version is that of the destination's configuration; it goes up by one with
	// every update and is part of the names of objects.
	Version int
	Source  Source
	// Encryption seals direct puts from now on; nil stores them as they are.
	Encryption *Encryption

	// Chain is what records pass through; nil passes them on as they are.
	Chain *process.Chain
	// Main is where records go. The engine owns it and closes it when nothing of
	// this version is left.
	Main dest.Destination
	Kind Kind
	// Converts says that Main changes the format of records.
	Converts bool
	Hints    record.Hints
	Retry    dest.Retry
	// Concurrency is how many batches of one lane are delivered at the same
	// time; 1 keeps the order of a shard. Zero is 4 for objects, else 1.
	Concurrency int
	// Merge keeps one buffer for all lanes of the source.
	Merge bool
	// Partitioning sorts records into partitions; nil does not.
	Partitioning *Partitioning

	// Errors takes what cannot be processed or delivered.
	Errors Writer
	// ErrorsOf are the error outputs that Main, a dest.Placer, has names for.
	ErrorsOf map[string]Writer
	// ErrorType is the error-output-type of what the destination refused; that of
	// Kind if empty.
	ErrorType string
	// Backup, if set, takes all records as they arrived.
	Backup      Writer
	BackupHints record.Hints

	// Log says where events about failures go; nil for nowhere.
	Log *LogTarget
	// BackupLog is the same for failures of the backup.
	BackupLog *LogTarget
}

// Source is where the records of a delivery stream come from. At most one of
// the members is set; none is a direct put.
type Source struct {
	Stream *StreamConfig
	Topic  *TopicConfig
}

// StreamConfig names a data stream as a source.
type StreamConfig struct {
	ARN string
	// From is the arrival time of the first record wanted of the shards that are
	// there at the start; their descendants are read from the beginning.
	From time.Time
}

// TopicConfig names a Kafka topic as a source.
type TopicConfig struct {
	ClusterARN string
	Topic      string
	// From is the timestamp of the first record wanted; the zero time stands for
	// the earliest.
	From time.Time
	// MaxRecordBytes is the size above which a record goes to the error output:
	// 10 MB, or 6 MB with a function. Zero is 10 MB.
	MaxRecordBytes int
}

// Encryption is how direct puts are sealed.
type Encryption struct {
	DataKey string // id of a data key of the ring
}

// Partitioning is dynamic partitioning.
type Partitioning struct {
	// Prefix gives the prefix of a record, by which partitions are told apart.
	Prefix *naming.Template
	// MaxActive bounds the partitions that have undelivered records; 500 if zero.
	MaxActive int
}

// LogTarget is a log group and stream.
type LogTarget struct{ Group, Stream string }

// ErrorLog takes events about failures.
type ErrorLog interface {
	// Log adds one event, JSON of §10.2 of the service's guide. It must not block
	// for long; an event that cannot be stored is lost.
	Log(ctx context.Context, account, region, group, stream string, at time.Time, event []byte)
}
