package process

import (
	"bytes"
	"encoding/binary"

	"github.com/itchyny/gojq"

	"github.com/millrace/millrace/internal/firehose/record"
)

// pathNode is a step of the paths that a program consists of, like
// {customer: .customer.id, level: .level}. Most programs do; they are run on the
// text of a record, without making values of it.
type pathNode struct {
	names    []string
	children []*pathNode // of the names
	keys     []string    // that the value here is wanted for
}

// compilePaths gives the paths of a program, or nil if it is more than that.
func compilePaths(q *gojq.Query) *pathNode {
	t := q.Term
	if t == nil || t.Type != gojq.TermTypeObject || len(t.SuffixList) > 0 || len(q.FuncDefs) > 0 || len(t.Object.KeyVals) == 0 {
		return nil
	}
	root, seen := &pathNode{}, map[string]bool{}
	for _, kv := range t.Object.KeyVals {
		key := kv.Key
		if kv.KeyString != nil && kv.KeyString.Queries == nil {
			key = kv.KeyString.Str
		}
		if key == "" || key[0] == '$' || kv.KeyQuery != nil || seen[key] {
			return nil
		}
		seen[key] = true
		path := []string{key}
		if kv.Val != nil {
			if path = pathOf(kv.Val); path == nil {
				return nil
			}
		}
		node := root
		for _, name := range path {
			node = node.child(name)
		}
		node.keys = append(node.keys, key)
	}
	return root
}

// pathOf gives the names in .a.b.c, and nil for anything else.
func pathOf(q *gojq.Query) []string {
	t := q.Term
	if t == nil || t.Type != gojq.TermTypeIndex || q.Op != 0 || len(q.FuncDefs) > 0 {
		return nil
	}
	var names []string
	add := func(x *gojq.Index) bool {
		if x == nil || x.IsSlice || x.End != nil {
			return false
		}
		name, text := x.Name, x.Str
		if x.Start != nil { // .["name"]
			t := x.Start.Term
			if t == nil || t.Type != gojq.TermTypeString || len(t.SuffixList) > 0 || len(x.Start.FuncDefs) > 0 {
				return false
			}
			text = t.Str
		}
		if text != nil {
			if text.Queries != nil {
				return false
			}
			name = text.Str
		}
		names = append(names, name)
		return name != "" || text != nil
	}
	if !add(t.Index) {
		return nil
	}
	for _, s := range t.SuffixList {
		if s.Iter || s.Optional || !add(s.Index) {
			return nil
		}
	}
	return names
}

// child finds or makes the step of a name.
func (n *pathNode) child(name string) *pathNode {
	for i, s := range n.names {
		if s == name {
			return n.children[i]
		}
	}
	c := &pathNode{}
	n.names, n.children = append(n.names, name), append(n.children, c)
	return c
}

// extraction runs paths over records, one after the other.
type extraction struct {
	scanner
	found []foundKey
	odd   bool
	name  []byte
	sets  map[string]*record.Keys
}

type foundKey struct {
	key  string
	text []byte
}

// maxSets bounds the sets of keys that an extraction remembers. Records that are
// processed at once have few different ones, or have nothing to gain.
const maxSets = 256

// extract runs the paths. It gives nil for everything out of the ordinary: no
// JSON, names that occur twice, values that are missing or no good as a key. The
// interpreter knows what to say about those. Records with the same keys share
// them.
func (n *pathNode) extract(e *extraction, data []byte, count int) *record.Keys {
	e.text, e.at, e.odd, e.found = data, 0, false, e.found[:0]
	if e.peek() != '{' || e.walk(n, 0) != nil || e.odd || e.peek() != 0 || e.at < len(data) || len(e.found) != count {
		return nil
	}
	size := 0
	e.name = e.name[:0]
	for _, f := range e.found {
		size += len(f.key) + len(f.text)
		e.name = binary.AppendUvarint(e.name, uint64(len(f.key)))
		e.name = append(e.name, f.key...)
		e.name = binary.AppendUvarint(e.name, uint64(len(f.text)))
		e.name = append(e.name, f.text...)
	}
	if size > maxKeyBytes {
		return nil
	}
	if set, ok := e.sets[string(e.name)]; ok {
		return set
	}
	keys := make(map[string]string, count)
	for _, f := range e.found {
		keys[f.key] = string(f.text)
	}
	set := &record.Keys{Query: keys}
	if e.sets == nil || len(e.sets) == maxSets {
		e.sets = map[string]*record.Keys{}
	}
	e.sets[string(e.name)] = set
	return set
}

// walk passes an object and takes what the step wants of it.
func (e *extraction) walk(n *pathNode, depth int) error {
	seen := uint64(0)
	return e.object(func(raw []byte, simple bool) error {
		if !simple { // it may be one of the names in disguise
			e.odd = true
		}
		for i, name := range n.names {
			if string(raw) != name {
				continue
			}
			if i >= 64 || seen&(1<<i) != 0 {
				e.odd = true
			}
			seen |= 1 << (i & 63)
			return e.want(n.children[i], depth+1)
		}
		return e.value(depth + 1)
	})
}

// want passes a value that is wanted.
func (e *extraction) want(n *pathNode, depth int) error {
	c := e.peek()
	if len(n.names) > 0 {
		if c != '{' || len(n.keys) > 0 {
			e.odd = true
			return e.value(depth)
		}
		return e.walk(n, depth)
	}
	var text []byte
	switch c {
	case '"':
		raw, simple, err := e.quoted()
		if err == nil && !simple {
			raw, err = appendText(nil, raw)
		}
		if err != nil {
			return err
		}
		text = raw
	case 't', 'f', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		start := e.at
		if err := e.value(depth); err != nil {
			return err
		}
		text = e.text[start:e.at]
		if c == '-' || len(text) > 18 || bytes.ContainsAny(text, ".eE") && c != 't' && c != 'f' {
			e.odd = true // a number that is written in more than one way
		}
	default:
		e.odd = true
		return e.value(depth)
	}
	if len(text) == 0 {
		e.odd = true
	}
	for _, key := range n.keys {
		e.found = append(e.found, foundKey{key, text})
	}
	return nil
}
