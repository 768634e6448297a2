package streams

import (
	"fmt"

	"github.com/millrace/millrace/internal/api/kinesis"
)

// The errors that several operations share. Texts are wire facts: clients and
// users match on them.

func invalidArgument(format string, args ...any) error {
	return &kinesis.InvalidArgumentException{Message: text(format, args)}
}

func validation(format string, args ...any) error {
	return &kinesis.ValidationException{Message: text(format, args)}
}

func limitExceeded(format string, args ...any) error {
	return &kinesis.LimitExceededException{Message: text(format, args)}
}

func resourceInUse(format string, args ...any) error {
	return &kinesis.ResourceInUseException{Message: text(format, args)}
}

func resourceNotFound(format string, args ...any) error {
	return &kinesis.ResourceNotFoundException{Message: text(format, args)}
}

func text(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

func streamNotFound(account, name string) error {
	return resourceNotFound("Stream %s under account %s not found.", name, account)
}

// shardNotFound is what changes of shards say of a shard that is not there, and
// every call of a shard id that cannot be read (raw as it came).
func shardNotFound(shard, stream, account string) error {
	return resourceNotFound("Could not find shard %s in stream %s under account %s.", shard, stream, account)
}

// notActive refuses a change of a stream that is in the middle of another.
func notActive(st *stream) error {
	return resourceInUse("Stream %s under account %s not ACTIVE, instead in state %s", st.name, st.account, st.status)
}

// onDemandRefusal refuses resharding by hand in on-demand mode.
func onDemandRefusal(st *stream) error {
	return validation("Request is invalid. Stream %s under account %s is in On-Demand mode.", st.name, st.account)
}

func shardLimit(account, region string, current, limit, more int) error {
	return limitExceeded("This request would exceed the shard limit for the account %s in %s. Current shard count for the account: %d. "+
		"Limit: %d. Number of additional shards that would have resulted from this request: %d. "+
		"Refer to the AWS Service Limits page (https://docs.aws.amazon.com/general/latest/gr/aws_service_limits.html) "+
		"for current limits and how to request higher limits.", account, region, current, limit, more)
}

func consumerNotFound(name, account string) error {
	return resourceNotFound("Consumer %s, account %s not found.", name, account)
}
