package text

import (
	"fmt"
	"strings"
)

// Step is one step of a JSON path.
type Step struct {
	Name  string
	Array bool // [0:]: all elements
}

// ParsePath reads a path as the service's mappings have it: $ with .name and
// [0:] steps.
func ParsePath(path string) ([]Step, error) {
	rest, ok := strings.CutPrefix(path, "$")
	if !ok {
		return nil, fmt.Errorf("a JSON path begins with $, not %q", path)
	}
	var steps []Step
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "[0:]"):
			steps = append(steps, Step{Array: true})
			rest = rest[4:]
		case strings.HasPrefix(rest, "["):
			end := strings.IndexByte(rest, ']')
			if end < 4 || rest[1] != '\'' && rest[1] != '"' || rest[end-1] != rest[1] {
				return nil, fmt.Errorf("in a JSON path, only [0:] stands for elements of an array: %q", path)
			}
			steps = append(steps, Step{Name: rest[2 : end-1]})
			rest = rest[end+1:]
		case rest[0] == '.':
			rest = rest[1:]
			end := strings.IndexAny(rest, ".[")
			if end < 0 {
				end = len(rest)
			}
			if end == 0 {
				return nil, fmt.Errorf("a step of the JSON path %q has no name", path)
			}
			steps = append(steps, Step{Name: rest[:end]})
			rest = rest[end:]
		default:
			return nil, fmt.Errorf("a step of the JSON path %q begins with . or [0:]", path)
		}
		if len(steps) > 100 {
			return nil, fmt.Errorf("a JSON path has at most 100 steps")
		}
	}
	return steps, nil
}
