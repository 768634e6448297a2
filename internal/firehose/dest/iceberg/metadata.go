package iceberg

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
)

// metadata is a table's metadata of format version 2 or 3. What is not known
// here is kept as it was read, so that a commit loses nothing that others have
// written. It is not changed once it is made.
type metadata struct {
	raw map[string]json.RawMessage

	Version           int               `json:"format-version"`
	UUID              string            `json:"table-uuid"`
	Location          string            `json:"location"`
	LastSequence      int64             `json:"last-sequence-number"`
	LastUpdated       int64             `json:"last-updated-ms"`
	LastColumn        int               `json:"last-column-id"`
	Schemas           []json.RawMessage `json:"schemas"`
	CurrentSchema     int               `json:"current-schema-id"`
	Specs             []json.RawMessage `json:"partition-specs"`
	DefaultSpec       int               `json:"default-spec-id"`
	Properties        map[string]string `json:"properties"`
	CurrentSnapshotID *int64            `json:"current-snapshot-id"`
	Snapshots         []json.RawMessage `json:"snapshots"`
	NextRow           int64             `json:"next-row-id"`

	schema    *iceberg.Schema
	spec      iceberg.PartitionSpec
	snapshots []snapshot
}

// snapshot is a state of a table.
type snapshot struct {
	ID       int64             `json:"snapshot-id"`
	Parent   *int64            `json:"parent-snapshot-id,omitempty"`
	Sequence int64             `json:"sequence-number"`
	Time     int64             `json:"timestamp-ms"`
	List     string            `json:"manifest-list"`
	Summary  map[string]string `json:"summary"`
	Schema   *int              `json:"schema-id,omitempty"`
	FirstRow *int64            `json:"first-row-id,omitempty"` // from format version 3 on
	Rows     *int64            `json:"added-rows,omitempty"`
}

// parseMetadata reads metadata, also if it is compressed.
func parseMetadata(text []byte) (*metadata, error) {
	if len(text) > 2 && text[0] == 0x1f && text[1] == 0x8b {
		z, err := gzip.NewReader(bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		if text, err = io.ReadAll(io.LimitReader(z, maxWhole+1)); err != nil {
			return nil, err
		}
		if len(text) > maxWhole {
			return nil, errors.New("the metadata is too large")
		}
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	return newMetadata(raw)
}

// newMetadata makes sense of the members.
func newMetadata(raw map[string]json.RawMessage) (*metadata, error) {
	m := &metadata{raw: raw}
	for name, into := range map[string]any{
		"format-version": &m.Version, "table-uuid": &m.UUID, "location": &m.Location, "last-sequence-number": &m.LastSequence,
		"last-updated-ms": &m.LastUpdated, "last-column-id": &m.LastColumn, "schemas": &m.Schemas, "current-schema-id": &m.CurrentSchema,
		"partition-specs": &m.Specs, "default-spec-id": &m.DefaultSpec, "properties": &m.Properties,
		"current-snapshot-id": &m.CurrentSnapshotID, "snapshots": &m.Snapshots, "next-row-id": &m.NextRow,
	} {
		if text, ok := raw[name]; ok {
			if err := json.Unmarshal(text, into); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if m.Version < 2 {
		return m, nil // of no further use
	}
	for _, text := range m.Schemas {
		var id struct {
			ID int `json:"schema-id"`
		}
		if err := json.Unmarshal(text, &id); err != nil {
			return nil, fmt.Errorf("schemas: %w", err)
		}
		if id.ID == m.CurrentSchema {
			m.schema = &iceberg.Schema{}
			if err := json.Unmarshal(text, m.schema); err != nil {
				return nil, fmt.Errorf("schema %d: %w", id.ID, err)
			}
		}
	}
	if m.schema == nil {
		return nil, fmt.Errorf("there is no schema %d", m.CurrentSchema)
	}
	found := false
	for _, text := range m.Specs {
		var id struct {
			ID int `json:"spec-id"`
		}
		if err := json.Unmarshal(text, &id); err != nil {
			return nil, fmt.Errorf("partition-specs: %w", err)
		}
		if id.ID == m.DefaultSpec {
			found = true
			if err := json.Unmarshal(text, &m.spec); err != nil {
				return nil, fmt.Errorf("partition spec %d: %w", id.ID, err)
			}
		}
	}
	if !found {
		return nil, fmt.Errorf("there is no partition spec %d", m.DefaultSpec)
	}
	m.snapshots = make([]snapshot, len(m.Snapshots))
	for i, text := range m.Snapshots {
		if err := json.Unmarshal(text, &m.snapshots[i]); err != nil {
			return nil, fmt.Errorf("snapshots: %w", err)
		}
	}
	return m, nil
}

// current is the current snapshot; nil if the table is empty. Older writers say
// -1 for none.
func (m *metadata) current() *snapshot {
	if m.CurrentSnapshotID == nil {
		return nil
	}
	for i := range m.snapshots {
		if m.snapshots[i].ID == *m.CurrentSnapshotID {
			return &m.snapshots[i]
		}
	}
	return nil
}

// property is a table's property, or what stands for it.
func (m *metadata) property(name, otherwise string) string {
	if v := m.Properties[name]; v != "" {
		return v
	}
	return otherwise
}

// text is the metadata as it is stored.
func (m *metadata) text() ([]byte, error) { return json.Marshal(m.raw) }

// makeMetadata is that of a new table. The schema gets ids of its own, as every
// catalog gives them.
func makeMetadata(schema *iceberg.Schema, spec *iceberg.PartitionSpec, location string) (*metadata, error) {
	schema, spec, err := number(schema, spec)
	if err != nil {
		return nil, err
	}
	lastPartition := iceberg.PartitionDataIDStart - 1
	for _, f := range spec.Fields() {
		lastPartition = max(lastPartition, f.FieldID)
	}
	now := time.Now().UnixMilli()
	return set(nil, map[string]any{
		"format-version": 2, "table-uuid": uuid.NewString(), "location": location,
		"last-sequence-number": 0, "last-updated-ms": now, "last-column-id": schema.HighestFieldID(),
		"schemas": []any{schema}, "current-schema-id": schema.ID,
		"partition-specs": []any{spec}, "default-spec-id": spec.ID(), "last-partition-id": lastPartition,
		"properties": struct{}{}, "snapshots": []any{}, "snapshot-log": []any{}, "metadata-log": []any{},
		"sort-orders": []any{map[string]any{"order-id": 0, "fields": []any{}}}, "default-sort-order-id": 0, "refs": struct{}{},
	})
}

// number gives a schema ids from one on, columns first, and takes the spec
// along.
func number(schema *iceberg.Schema, spec *iceberg.PartitionSpec) (*iceberg.Schema, *iceberg.PartitionSpec, error) {
	fresh, err := iceberg.AssignFreshSchemaIDs(schema, nil)
	if err != nil {
		return nil, nil, err
	}
	if spec == nil {
		return fresh, iceberg.UnpartitionedSpec, nil
	}
	var fields []iceberg.PartitionField
	for _, f := range spec.Fields() {
		name, _ := schema.FindColumnName(f.SourceID())
		source, ok := fresh.FindFieldByName(name)
		if !ok {
			return nil, nil, fmt.Errorf("partition field %s has no column", f.Name)
		}
		fields = append(fields, iceberg.PartitionField{SourceIDs: []int{source.ID}, FieldID: f.FieldID, Name: f.Name, Transform: f.Transform})
	}
	s := iceberg.NewPartitionSpec(fields...)
	return fresh, &s, nil
}

// set makes metadata with some members replaced.
func set(old *metadata, members map[string]any) (*metadata, error) {
	raw := map[string]json.RawMessage{}
	if old != nil {
		maps.Copy(raw, old.raw)
	}
	for name, v := range members {
		text, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		raw[name] = text
	}
	return newMetadata(raw)
}

// commit is what one change asks of a catalog: what has to hold, and what is
// different then. It has the form that REST catalogs take.
type commit struct {
	Requirements []requirement `json:"requirements"`
	Updates      []update      `json:"updates"`
}

// requirement is one of
// assert-table-uuid, assert-ref-snapshot-id, assert-current-schema-id,
// assert-default-spec-id and assert-last-assigned-field-id.
type requirement map[string]any

// update is an action; the members that it uses are set.
type update struct {
	Action     string          `json:"action"`
	Schema     *iceberg.Schema `json:"schema,omitempty"`
	LastColumn int             `json:"last-column-id,omitempty"`
	SchemaID   *int            `json:"schema-id,omitempty"`
	Snapshot   *snapshot       `json:"snapshot,omitempty"`
	Ref        string          `json:"ref-name,omitempty"`
	RefType    string          `json:"type,omitempty"`
	SnapshotID int64           `json:"snapshot-id,omitempty"`
}

// errCommit is a commit that lost against another one, and has had no effect.
var errCommit = errors.New("commit failed, refresh and try again")

const mainBranch = "main"

// widen is the commit of a schema with more columns.
func widen(m *metadata, schema *iceberg.Schema) commit {
	last := -1
	return commit{
		Requirements: []requirement{
			{"type": "assert-table-uuid", "uuid": m.UUID},
			{"type": "assert-current-schema-id", "current-schema-id": m.CurrentSchema},
			{"type": "assert-last-assigned-field-id", "last-assigned-field-id": m.LastColumn},
		},
		Updates: []update{
			{Action: "add-schema", Schema: schema, LastColumn: max(m.LastColumn, schema.HighestFieldID())},
			{Action: "set-current-schema", SchemaID: &last},
		},
	}
}

// proceed is the commit of a snapshot. What was written is of a schema and cut
// by a partition spec; with others it would have to be written anew.
func proceed(m *metadata, s *snapshot) commit {
	var parent any
	if s.Parent != nil {
		parent = *s.Parent
	}
	return commit{
		Requirements: []requirement{
			{"type": "assert-table-uuid", "uuid": m.UUID},
			{"type": "assert-ref-snapshot-id", "ref": mainBranch, "snapshot-id": parent},
			{"type": "assert-current-schema-id", "current-schema-id": m.CurrentSchema},
			{"type": "assert-default-spec-id", "default-spec-id": m.DefaultSpec},
		},
		Updates: []update{
			{Action: "add-snapshot", Snapshot: s},
			{Action: "set-snapshot-ref", Ref: mainBranch, RefType: "branch", SnapshotID: s.ID},
		},
	}
}

// holds checks a requirement.
func (r requirement) holds(m *metadata) bool {
	switch r["type"] {
	case "assert-table-uuid":
		return r["uuid"] == m.UUID
	case "assert-ref-snapshot-id":
		if now := m.current(); now != nil {
			return r["snapshot-id"] == now.ID
		}
		return r["snapshot-id"] == nil
	case "assert-current-schema-id":
		return r["current-schema-id"] == m.CurrentSchema
	case "assert-default-spec-id":
		return r["default-spec-id"] == m.DefaultSpec
	case "assert-last-assigned-field-id":
		return r["last-assigned-field-id"] == m.LastColumn
	}
	return false
}

// advance checks a commit against what is there and makes the next metadata;
// address is where the present is stored.
func advance(m *metadata, c commit, address string) (*metadata, error) {
	for _, r := range c.Requirements {
		if !r.holds(m) {
			return nil, fmt.Errorf("%w: %s does not hold", errCommit, r["type"])
		}
	}
	now := max(time.Now().UnixMilli(), m.LastUpdated)
	changed := map[string]any{}
	for _, u := range c.Updates {
		switch u.Action {
		case "add-schema":
			schemas := slices.Clone(m.Schemas)
			text, err := json.Marshal(u.Schema)
			if err != nil {
				return nil, err
			}
			changed["schemas"], changed["last-column-id"] = append(schemas, text), u.LastColumn
			changed["current-schema-id"] = u.Schema.ID
		case "set-current-schema": // to the one that was added
		case "add-snapshot":
			text, err := json.Marshal(u.Snapshot)
			if err != nil {
				return nil, err
			}
			now = max(now, u.Snapshot.Time)
			changed["snapshots"] = append(slices.Clone(m.Snapshots), text)
			changed["last-sequence-number"], changed["current-snapshot-id"] = u.Snapshot.Sequence, u.Snapshot.ID
			if u.Snapshot.FirstRow != nil {
				changed["next-row-id"] = *u.Snapshot.FirstRow + *u.Snapshot.Rows
			}
			if changed["snapshot-log"], err = m.append("snapshot-log", map[string]any{"timestamp-ms": u.Snapshot.Time, "snapshot-id": u.Snapshot.ID}, -1); err != nil {
				return nil, err
			}
		case "set-snapshot-ref":
			refs, ref := map[string]json.RawMessage{}, map[string]any{}
			if text, ok := m.raw["refs"]; ok {
				if err := json.Unmarshal(text, &refs); err != nil {
					return nil, fmt.Errorf("refs: %w", err)
				}
			}
			if text, ok := refs[u.Ref]; ok { // keeps how long it is retained
				if err := unmarshalExactly(text, &ref); err != nil {
					return nil, fmt.Errorf("refs: %w", err)
				}
			}
			ref["snapshot-id"], ref["type"] = u.SnapshotID, u.RefType
			text, err := json.Marshal(ref)
			if err != nil {
				return nil, err
			}
			if refs == nil {
				refs = map[string]json.RawMessage{}
			}
			refs[u.Ref] = text
			changed["refs"] = refs
		default:
			return nil, fmt.Errorf("there is no update %q", u.Action)
		}
	}
	keep, err := strconv.Atoi(m.property("write.metadata.previous-versions-max", "100"))
	if err != nil || keep < 1 {
		keep = 1
	}
	if changed["metadata-log"], err = m.append("metadata-log", map[string]any{"timestamp-ms": m.LastUpdated, "metadata-file": address}, keep); err != nil {
		return nil, err
	}
	changed["last-updated-ms"] = now
	return set(m, changed)
}

// append is a list with one more entry, of which the last are kept unless keep
// is negative.
func (m *metadata) append(name string, entry any, keep int) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if text, ok := m.raw[name]; ok {
		if err := json.Unmarshal(text, &list); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	text, err := json.Marshal(entry)
	if err != nil {
		return nil, err
	}
	list = append(list, text)
	if keep >= 0 && len(list) > keep {
		list = list[len(list)-keep:]
	}
	return list, nil
}

// unmarshalExactly keeps large numbers as they are.
func unmarshalExactly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}

// metadataPath and dataPath are where a table's files go.
func (m *metadata) metadataPath() string {
	return strings.TrimRight(m.property("write.metadata.path", m.Location+"/metadata"), "/")
}

func (m *metadata) dataPath() string {
	return strings.TrimRight(m.property("write.data.path", m.Location+"/data"), "/")
}
