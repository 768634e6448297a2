package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Seed is what should exist once a server has started. What already exists is
// left as it is. Users and roles stand in the same file and are read by package
// iam.
type Seed struct {
	Streams []SeedStream `yaml:"streams"`
	Users   any          `yaml:"users"`
	Roles   any          `yaml:"roles"`
}

// SeedStream is a stream to create.
type SeedStream struct {
	Name           string            `yaml:"name"`
	Shards         int               `yaml:"shards"` // 1 if left out
	OnDemand       bool              `yaml:"on-demand"`
	Region         string            `yaml:"region"`          // the region setting if left out
	RetentionHours int               `yaml:"retention-hours"` // 24 if left out
	Tags           map[string]string `yaml:"tags"`
}

// maxSeedShards is as many as max-shards may allow.
const maxSeedShards = 10_000_000

var streamName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)

// ReadSeed reads a seed file and fills what was left out from the
// configuration.
func (c *Config) ReadSeed(path string) (*Seed, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("seed file: %w", err)
	}
	s := new(Seed)
	if err := yaml.UnmarshalWithOptions(raw, s, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("seed file %w", syntaxError(path, err))
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("seed file %s: %s", path, fmt.Sprintf(format, args...))
	}
	for i := range s.Streams {
		st := &s.Streams[i]
		if !streamName.MatchString(st.Name) {
			return nil, bad("streams[%d]: %q is not a stream name; 1 to 128 of a-z A-Z 0-9 _ . -", i, st.Name)
		}
		if st.OnDemand && st.Shards != 0 {
			return nil, bad("stream %s: an on-demand stream takes no shards", st.Name)
		}
		if st.Shards == 0 && !st.OnDemand {
			st.Shards = 1
		}
		if !st.OnDemand && (st.Shards < 1 || st.Shards > maxSeedShards) {
			return nil, bad("stream %s: shards: %d is outside 1 to %d", st.Name, st.Shards, maxSeedShards)
		}
		if st.Region == "" {
			st.Region = c.Region
		}
		if st.RetentionHours == 0 {
			st.RetentionHours = 24
		}
		if st.RetentionHours < 24 || st.RetentionHours > 8760 {
			return nil, bad("stream %s: retention-hours: %d is outside 24 to 8760", st.Name, st.RetentionHours)
		}
	}
	return s, nil
}

// ParseStreams reads name:shards[:region],… as kinesis-mock users write it.
func ParseStreams(text, region string) ([]SeedStream, error) {
	var list []SeedStream
	for item := range strings.SplitSeq(text, ",") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		parts := strings.Split(item, ":")
		if len(parts) > 3 || !streamName.MatchString(parts[0]) {
			return nil, fmt.Errorf("%q is not name:shards[:region]", item)
		}
		st := SeedStream{Name: parts[0], Shards: 1, Region: region, RetentionHours: 24}
		if len(parts) > 1 && parts[1] != "" {
			n, err := strconv.Atoi(parts[1])
			if err != nil || n < 1 || n > maxSeedShards {
				return nil, fmt.Errorf("%q: %q is not a number of shards, 1 to %d", item, parts[1], maxSeedShards)
			}
			st.Shards = n
		}
		if len(parts) > 2 {
			if parts[2] == "" {
				return nil, errors.New("empty region in " + strconv.Quote(item))
			}
			st.Region = parts[2]
		}
		list = append(list, st)
	}
	return list, nil
}
