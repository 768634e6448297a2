package iceberg

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/google/uuid"
)

// prepared is what a snapshot adds to those before it.
type prepared struct {
	id        int64
	manifests []iceberg.ManifestFile
	summary   map[string]int64 // what is added
	operation string
	rows      int64
}

// prepare writes the manifests of new files. They are good for any snapshot that
// the change may follow in the end.
func (c *change) prepare(added, removed []iceberg.DataFile) (*prepared, error) {
	p := &prepared{id: rand.Int64(), summary: map[string]int64{}}
	switch {
	case len(removed) == 0:
		p.operation = "append"
	case len(added) == 0:
		p.operation = "delete"
	default:
		p.operation = "overwrite"
	}
	partitions := map[string]bool{}
	for _, f := range added {
		p.rows += f.Count()
		p.summary["added-data-files"]++
		p.summary["added-records"] += f.Count()
		p.summary["added-files-size"] += f.FileSizeBytes()
		partitions[fmt.Sprint(f.Partition())] = true
	}
	for _, f := range removed {
		p.summary["added-delete-files"]++
		p.summary["added-equality-delete-files"]++
		p.summary["added-equality-deletes"] += f.Count()
		p.summary["added-files-size"] += f.FileSizeBytes()
		partitions[fmt.Sprint(f.Partition())] = true
	}
	p.summary["changed-partition-count"] = int64(len(partitions))
	for content, list := range [][]iceberg.DataFile{iceberg.ManifestContentData: added, iceberg.ManifestContentDeletes: removed} {
		if len(list) == 0 {
			continue
		}
		m, err := c.manifest(p.id, iceberg.ManifestContent(content), list)
		if err != nil {
			return nil, err
		}
		p.manifests = append(p.manifests, m)
	}
	return p, nil
}

// manifest writes a manifest of new files. Their sequence number is that of the
// snapshot that first lists the manifest.
func (c *change) manifest(id int64, content iceberg.ManifestContent, list []iceberg.DataFile) (iceberg.ManifestFile, error) {
	var b bytes.Buffer
	m := c.table.meta
	w, err := iceberg.NewManifestWriter(m.Version, &b, m.spec, c.schema, id, iceberg.WithManifestWriterContent(content))
	if err != nil {
		return nil, fmt.Errorf("write a manifest: %w", err)
	}
	for _, f := range list {
		if err := w.Add(iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, nil, nil, f)); err != nil {
			return nil, fmt.Errorf("write a manifest: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write a manifest: %w", err)
	}
	address := m.metadataPath() + "/" + uuid.NewString() + "-m0.avro"
	if err := c.files.write(address, b.Bytes()); err != nil {
		return nil, err
	}
	return w.ToManifestFile(address, int64(b.Len()))
}

// commit makes the snapshot current. When another commit was quicker it goes
// after that one, as long as the files are still what the table needs and the
// other has not brought the same records.
func (c *change) commit(p *prepared) (int64, error) {
	for attempt := 1; ; attempt++ {
		s, err := c.follow(p, attempt)
		if err != nil {
			return 0, err
		}
		_, err = c.d.catalog.commit(c.ctx, c.table, proceed(c.table.meta, s))
		if err == nil {
			return s.ID, nil
		}
		if !errors.Is(err, errCommit) {
			c.doubtful = true
			return 0, err
		}
		if attempt == attempts {
			return 0, err
		}
		c.files.discard(s.List)
		t, loadErr := c.d.catalog.load(c.ctx, c.database, c.name)
		if loadErr != nil || usable(t) != nil {
			return 0, err
		}
		earlier, accountErr := account(t, c.batch)
		old := c.table.meta
		if accountErr != nil || len(earlier) != len(c.earlier) || t.meta.UUID != old.UUID ||
			t.meta.CurrentSchema != old.CurrentSchema || t.meta.DefaultSpec != old.DefaultSpec || t.meta.Version != old.Version {
			return 0, err
		}
		c.table = t
	}
}

// follow makes the snapshot that comes after the table's current one.
func (c *change) follow(p *prepared, attempt int) (*snapshot, error) {
	m := c.table.meta
	s := &snapshot{
		ID: p.id, Sequence: m.LastSequence + 1, Time: max(time.Now().UnixMilli(), m.LastUpdated), Schema: &c.schema.ID,
		List: fmt.Sprintf("%s/snap-%d-%d-%s.avro", m.metadataPath(), p.id, attempt, uuid.NewString()),
		Summary: map[string]string{
			"operation": p.operation, summaryStream: c.batch.Stream.ARN, summaryBatch: c.batch.ID, summarySpans: formatSpans(c.spans.List),
		},
	}
	for name, n := range p.summary {
		s.Summary[name] = strconv.FormatInt(n, 10)
	}
	manifests := p.manifests[:len(p.manifests):len(p.manifests)]
	before := m.current()
	if before != nil {
		s.Parent = &before.ID
		if before.List == "" {
			return nil, fmt.Errorf("snapshot %d has no manifest list", before.ID)
		}
		text, err := c.files.read(before.List)
		if err != nil {
			return nil, err
		}
		list, err := iceberg.ReadManifestList(bytes.NewReader(text))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", before.List, err)
		}
		manifests = append(manifests, list...)
	}
	maps.Copy(s.Summary, totals(before, p.summary))
	var b bytes.Buffer
	if err := c.list(&b, s, manifests); err != nil {
		return nil, fmt.Errorf("write %s: %w", s.List, err)
	}
	return s, c.files.write(s.List, b.Bytes())
}

// list writes a manifest list. From format version 3 on it gives rows their ids.
func (c *change) list(b *bytes.Buffer, s *snapshot, manifests []iceberg.ManifestFile) error {
	m := c.table.meta
	if m.Version < 3 {
		return iceberg.WriteManifestList(m.Version, b, s.ID, s.Parent, &s.Sequence, 0, manifests)
	}
	w, err := iceberg.NewManifestListWriterV3(b, s.ID, s.Sequence, m.NextRow, s.Parent)
	if err != nil {
		return err
	}
	if err := w.AddManifests(manifests); err != nil {
		return errors.Join(err, w.Close())
	}
	first, rows := m.NextRow, *w.NextRowID()-m.NextRow
	s.FirstRow, s.Rows = &first, &rows
	return w.Close()
}

// totals are the sums over all snapshots, as far as the one before has them.
func totals(before *snapshot, added map[string]int64) map[string]string {
	sums := map[string]string{}
	for total, name := range map[string]string{
		"total-data-files": "added-data-files", "total-delete-files": "added-delete-files", "total-records": "added-records",
		"total-files-size": "added-files-size", "total-equality-deletes": "added-equality-deletes", "total-position-deletes": "",
	} {
		old := int64(0)
		if before != nil {
			n, err := strconv.ParseInt(before.Summary[total], 10, 64)
			if err != nil {
				continue
			}
			old = n
		}
		sums[total] = strconv.FormatInt(old+added[name], 10)
	}
	return sums
}
