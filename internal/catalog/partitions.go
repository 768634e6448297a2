package catalog

import (
	"context"
	"hash/fnv"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/glue"
	"github.com/millrace/millrace/internal/meta"
)

// partitionKey is the place of a partition of a table.
func partitionKey(account, region, databaseName, name string, values []string) []string {
	return append([]string{account, region, databaseName, name}, values...)
}

// createPartition makes one partition.
func (s *Service) createPartition(ctx context.Context, account, region, databaseName, name string, in *glue.PartitionInput) error {
	return retry(ctx, func() error {
		row, err := s.table(account, region, databaseName, name)
		if err != nil {
			return err
		}
		if len(in.Values) == 0 || len(in.Values) != len(row.Value.Input.PartitionKeys) {
			return invalid("The number of partition keys do not match the number of partition values")
		}
		parts := partitionKey(account, region, databaseName, name, in.Values)
		if len(partitions.Key(parts...)) > meta.MaxKeyBytes {
			return invalid("Partition values are too long.")
		}
		if _, ok, err := partitions.Get(s.meta, parts...); err != nil {
			return err
		} else if ok {
			return &glue.AlreadyExistsException{Message: "Partition already exists."}
		}
		if !s.room(partitions.Key(account, region, databaseName, name)+"/", maxPartitions) {
			return limit("PARTITION", maxPartitions)
		}
		return s.commit(ctx, tables.Update(row), partitions.Insert(partition{Input: *in, Created: s.now().UnixMilli()}, parts...))
	})
}

// CreatePartition makes a partition of a table.
func (s *Service) CreatePartition(ctx context.Context, call *api.Call, in *glue.CreatePartitionInput) (*glue.CreatePartitionOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	return nil, s.createPartition(ctx, account, call.Region, fold(in.DatabaseName), fold(in.TableName), in.PartitionInput)
}

// BatchCreatePartition makes partitions. Those that could not be made are in the
// reply.
func (s *Service) BatchCreatePartition(ctx context.Context, call *api.Call, in *glue.BatchCreatePartitionInput) (*glue.BatchCreatePartitionOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), fold(in.TableName)
	if _, err := s.table(account, call.Region, databaseName, name); err != nil {
		return nil, err
	}
	out := &glue.BatchCreatePartitionOutput{}
	for i := range in.PartitionInputList {
		p := &in.PartitionInputList[i]
		err := s.createPartition(ctx, account, call.Region, databaseName, name, p)
		if detail := errorDetail(err); detail != nil {
			out.Errors = append(out.Errors, glue.PartitionError{PartitionValues: p.Values, ErrorDetail: detail})
		} else if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (p *partition) output(account, databaseName, name string) glue.Partition {
	in := &p.Input
	return glue.Partition{
		Values: in.Values, DatabaseName: &databaseName, TableName: &name, CreationTime: millis(p.Created), LastAccessTime: in.LastAccessTime,
		StorageDescriptor: in.StorageDescriptor, Parameters: in.Parameters, LastAnalyzedTime: in.LastAnalyzedTime, CatalogId: &account,
	}
}

// GetPartition describes a partition.
func (s *Service) GetPartition(_ context.Context, call *api.Call, in *glue.GetPartitionInput) (*glue.GetPartitionOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), fold(in.TableName)
	if _, err := s.table(account, call.Region, databaseName, name); err != nil {
		return nil, err
	}
	row, ok, err := partitions.Get(s.meta, partitionKey(account, call.Region, databaseName, name, in.PartitionValues)...)
	if err != nil {
		return nil, err
	}
	if !ok || len(in.PartitionValues) == 0 {
		return nil, notFound("Partition %s not found.", strings.Join(in.PartitionValues, "/"))
	}
	return &glue.GetPartitionOutput{Partition: api.Ptr(row.Value.output(account, databaseName, name))}, nil
}

// GetPartitions lists the partitions of a table that an expression covers, a page
// at a time, whole or one segment of them.
func (s *Service) GetPartitions(_ context.Context, call *api.Call, in *glue.GetPartitionsInput) (*glue.GetPartitionsOutput, error) {
	account, err := owner(call, in.CatalogId)
	if err != nil {
		return nil, err
	}
	databaseName, name := fold(in.DatabaseName), fold(in.TableName)
	t, err := s.table(account, call.Region, databaseName, name)
	if err != nil {
		return nil, err
	}
	matches, err := parseExpression(api.Val(in.Expression), t.Value.Input.PartitionKeys)
	if err != nil {
		return nil, err
	}
	if seg := in.Segment; seg != nil && api.Val(seg.SegmentNumber) >= api.Val(seg.TotalSegments) {
		return nil, invalid("SegmentNumber must be less than TotalSegments.")
	}
	after, err := decodeToken("partitions", in.NextToken)
	if err != nil {
		return nil, err
	}
	prefix := partitions.Key(account, call.Region, databaseName, name) + "/"
	if after != "" {
		after = prefix + after
	}
	most := pageSize
	if n := api.Val(in.MaxResults); n > 0 {
		most = min(int(n), 1000)
	}
	out := &glue.GetPartitionsOutput{Partitions: []glue.Partition{}}
	last := ""
	for {
		rows, err := partitions.List(s.meta, after, pageSize, account, call.Region, databaseName, name)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			p := &rows[i]
			if seg := in.Segment; seg != nil {
				h := fnv.New32a()
				h.Write([]byte(p.Key))
				if int32(h.Sum32()%uint32(api.Val(seg.TotalSegments))) != api.Val(seg.SegmentNumber) {
					continue
				}
			}
			if !matches(p.Value.Input.Values) {
				continue
			}
			if len(out.Partitions) == most {
				out.NextToken = encodeToken("partitions", strings.TrimPrefix(last, prefix))
				return out, nil
			}
			o := p.Value.output(account, databaseName, name)
			if api.Val(in.ExcludeColumnSchema) && o.StorageDescriptor != nil {
				sd := *o.StorageDescriptor
				sd.Columns = nil
				o.StorageDescriptor = &sd
			}
			out.Partitions = append(out.Partitions, o)
			last = p.Key
		}
		if len(rows) < pageSize {
			return out, nil
		}
		after = rows[len(rows)-1].Key
	}
}
