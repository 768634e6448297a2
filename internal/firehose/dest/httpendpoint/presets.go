package httpendpoint

import (
	_ "embed"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
)

//go:embed presets.yaml
var presetsFile []byte

// Preset is what one receiver wants. The API has no such thing; consoles and
// command lines fill in its members from one.
type Preset struct {
	Name         string `yaml:"name"`  // of the preset: datadog-logs
	Title        string `yaml:"title"` // for people: Datadog logs
	EndpointName string `yaml:"endpoint_name"`
	// URL has its open places in braces. Vars lists them with the values that are
	// known to exist; none means that any may.
	URL  string              `yaml:"url"`
	Vars map[string][]string `yaml:"vars"`
	// Size is the buffering hint in MB, Interval that in seconds.
	Size       Bounds            `yaml:"size"`
	Interval   Bounds            `yaml:"interval"`
	GZIP       bool              `yaml:"gzip"`
	Attributes []PresetAttribute `yaml:"attributes"`
	// Key says what the access key is; empty if there is none.
	Key string `yaml:"key"`
}

// Bounds are those of a buffering hint.
type Bounds struct {
	Min     int `yaml:"min"`
	Max     int `yaml:"max"`
	Default int `yaml:"default"`
}

// PresetAttribute is a common attribute that the receiver understands. A name
// may end in *.
type PresetAttribute struct {
	Name     string `yaml:"name"`
	Required bool   `yaml:"required"`
}

var presets = sync.OnceValue(func() []Preset {
	list, err := parsePresets(presetsFile)
	if err != nil {
		panic("httpendpoint: presets.yaml: " + err.Error())
	}
	return list
})

var place = regexp.MustCompile(`\{([a-z]+)\}`)

func parsePresets(text []byte) ([]Preset, error) {
	var file struct {
		Presets []Preset `yaml:"presets"`
	}
	if err := yaml.UnmarshalWithOptions(text, &file, yaml.Strict()); err != nil {
		return nil, err
	}
	for i := range file.Presets {
		p := &file.Presets[i]
		if p.Interval == (Bounds{}) {
			p.Interval = Bounds{Min: 0, Max: 900, Default: 60}
		}
		named := map[string]bool{}
		for _, m := range place.FindAllStringSubmatch(p.URL, -1) {
			named[m[1]] = true
		}
		if !slices.Equal(slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(p.Vars))) {
			return nil, fmt.Errorf("%s: the places of the URL are not those that vars lists", p.Name)
		}
	}
	return file.Presets, nil
}

// Presets lists what is known, in the order of the file. Callers own the slice
// and nothing below it.
func Presets() []Preset { return slices.Clone(presets()) }

// FindPreset finds one by its name.
func FindPreset(name string) (Preset, bool) {
	i := slices.IndexFunc(presets(), func(p Preset) bool { return p.Name == name })
	if i < 0 {
		return Preset{}, false
	}
	return presets()[i], true
}

// Endpoint makes the configuration of an endpoint: the open places of the URL
// are filled in with values, where a place with one known value may be left out.
func (p Preset) Endpoint(values map[string]string, accessKey string, attributes []Attribute) (Config, error) {
	for name := range values {
		if _, ok := p.Vars[name]; !ok {
			return Config{}, fmt.Errorf("%s has no %s; it has %s", p.Title, name, strings.Join(slices.Sorted(maps.Keys(p.Vars)), ", "))
		}
	}
	var missing []string
	address := place.ReplaceAllStringFunc(p.URL, func(match string) string {
		name := match[1 : len(match)-1]
		value := values[name]
		if known := p.Vars[name]; value == "" && len(known) == 1 {
			value = known[0]
		}
		if value == "" {
			missing = append(missing, name)
		}
		return value
	})
	if len(missing) > 0 {
		return Config{}, fmt.Errorf("%s needs %s", p.Title, strings.Join(missing, ", "))
	}
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		return Config{}, fmt.Errorf("%s: %s is not a URL", p.Title, address)
	}
	for _, want := range p.Attributes {
		has := slices.ContainsFunc(attributes, func(a Attribute) bool { return a.Name == want.Name })
		if want.Required && !has {
			return Config{}, fmt.Errorf("%s needs the attribute %s", p.Title, want.Name)
		}
	}
	return Config{URL: address, Name: p.EndpointName, AccessKey: accessKey, GZIP: p.GZIP, Attributes: attributes}, nil
}
