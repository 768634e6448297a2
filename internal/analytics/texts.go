package analytics

import (
	"fmt"

	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

// The errors that several operations share. Both versions of the API name them
// alike and give them the same members, so those of version 1 answer calls of
// either.

func invalid(format string, args ...any) error {
	return &kinesisanalytics.InvalidArgumentException{Message: fmt.Sprintf(format, args...)}
}

func inUse(format string, args ...any) error {
	return &kinesisanalytics.ResourceInUseException{Message: fmt.Sprintf(format, args...)}
}

func stale(format string, args ...any) error {
	return &kinesisanalytics.ConcurrentModificationException{Message: fmt.Sprintf(format, args...)}
}

func missing(format string, args ...any) error {
	return &kinesisanalytics.ResourceNotFoundException{Message: fmt.Sprintf(format, args...)}
}

func unusable(format string, args ...any) error {
	return &kinesisanalytics.InvalidApplicationConfigurationException{Message: fmt.Sprintf(format, args...)}
}

func unsupported(format string, args ...any) error {
	return &kinesisanalytics.UnsupportedOperationException{Message: fmt.Sprintf(format, args...)}
}

func notFound(account, name string) error {
	return missing("Application %s under account %s not found.", name, account)
}

func passing(a *application) error {
	return inUse("Application %s is in state %s; it can be changed when it is READY or RUNNING.", a.name, a.record.Status)
}
