package firehose

import (
	"fmt"

	"github.com/millrace/millrace/internal/api/firehose"
)

// The errors that several operations share. Texts are wire facts: clients and
// users match on them.

func invalidArgument(format string, args ...any) error {
	return &firehose.InvalidArgumentException{Message: text(format, args)}
}

func limitExceeded(format string, args ...any) error {
	return &firehose.LimitExceededException{Message: text(format, args)}
}

func resourceInUse(format string, args ...any) error {
	return &firehose.ResourceInUseException{Message: text(format, args)}
}

func text(format string, args []any) string {
	if len(args) == 0 {
		return format
	}
	return fmt.Sprintf(format, args...)
}

func notFound(account, name string) error {
	return &firehose.ResourceNotFoundException{Message: "Firehose " + name + " under account " + account + " not found."}
}

func notActive(st *stream) error {
	return resourceInUse("Firehose %s under account %s is not ACTIVE, instead in state %s.", st.name, st.account, st.record.Status)
}

// slowDown is what a throttled record or call is told.
const slowDown = "Slow down."

func unavailable(message string) error {
	return &firehose.ServiceUnavailableException{Message: message}
}
