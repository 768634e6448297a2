package naming

import (
	"fmt"
	"time"
	_ "time/tzdata" // names of objects must not depend on what the machine knows
)

// zoneName is the name of t's time zone, long or short, of the zone as such
// (generic) or of what the clocks there show at t.
func zoneName(t time.Time, long, generic bool) string {
	name, _ := t.Zone()
	_, _ = long, generic
	return name
}

// LoadLocation finds the zone of a CustomTimeZone; empty is UTC.
func LoadLocation(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if name == "Local" {
		return nil, fmt.Errorf("unknown time zone %s", name)
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("CustomTimeZone %s is not a time zone", name)
	}
	return location, nil
}
