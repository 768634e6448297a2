package naming

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // names of objects must not depend on what the machine knows
)

//go:embed zones.tsv
var zoneText string

// zoneNames are the names of a zone: short and long, each for standard time, for
// daylight time, and for the zone as such.
type zoneNames struct{ standard, daylight, longStandard, longDaylight, generic, longGeneric string }

var zones = sync.OnceValue(func() map[string]*zoneNames {
	names := map[string]*zoneNames{}
	for line := range strings.Lines(zoneText) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 7 {
			continue // a comment
		}
		z := &zoneNames{f[0], f[1], f[2], f[3], f[4], f[5]}
		for zone := range strings.FieldsSeq(f[6]) {
			names[zone] = z
		}
	}
	return names
})

// zoneName is the name of t's time zone, long or short, of the zone as such
// (generic) or of what the clocks there show at t.
func zoneName(t time.Time, long, generic bool) string {
	z := zones()[t.Location().String()]
	switch {
	case z == nil:
		name, _ := t.Zone()
		return name
	case generic && long:
		return z.longGeneric
	case generic:
		return z.generic
	}
	switch daylight := daylight(t); {
	case daylight && long:
		return z.longDaylight
	case daylight:
		return z.daylight
	case long:
		return z.longStandard
	}
	return z.standard
}

// daylight reports whether clocks are ahead. The zone database calls winter in
// Ireland and Ramadan in Morocco the exception; everybody who names these times
// sees it the other way round.
func daylight(t time.Time) bool {
	switch t.Location().String() {
	case "Europe/Dublin", "Eire", "Africa/Casablanca", "Africa/El_Aaiun":
		_, offset := t.Zone()
		return offset > 0
	}
	return t.IsDST()
}

// LoadLocation finds the zone of a CustomTimeZone; empty is UTC.
func LoadLocation(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	location, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("CustomTimeZone %s is not a time zone", clip(name))
	}
	return location, nil
}
