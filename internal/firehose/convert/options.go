package convert

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/convert/orc"
	"github.com/millrace/millrace/internal/firehose/convert/parquet"
	"github.com/millrace/millrace/internal/firehose/convert/serde"
)

// Latest is the version of a table that follows its changes.
const Latest = "LATEST"

// Table names a catalog's table, as a configuration gives it.
type Table struct {
	// Account and Region are where the table is looked up.
	Account, Region string
	Database, Name  string
	Version         string // a number, or Latest; empty is Latest
	// CatalogID and RoleARN are for failure documents: what the configuration
	// says, empty if nothing.
	CatalogID, RoleARN string
}

// Column is a column of a table: what a catalog says, unread.
type Column struct{ Name, Type string }

// Schema is a version of a table.
type Schema struct {
	Version string
	Columns []Column
	// Parameters are the table's; of them only TimestampsParameter matters here.
	Parameters map[string]string
}

// TimestampsParameter is the table parameter that says how Parquet files store
// timestamps: "int96", which the service does and old readers expect, or "micros".
const TimestampsParameter = "millrace.parquet.timestamps"

// Schemas is a catalog. A fault of *SchemaError names itself in failure logs;
// any other error is InternalError there.
type Schemas interface {
	// Schema reads the version that table asks for.
	Schema(ctx context.Context, table Table) (*Schema, error)
}

// SchemaError says why a catalog has no schema to give.
type SchemaError struct {
	// Code is one of those of conversions, without "DataFormatConversion.":
	// EntityNotFound, InvalidVersionId, AccessDenied …
	Code, Message string
}

func (e *SchemaError) Error() string { return e.Code + ": " + e.Message }

// Options describe a conversion.
type Options struct {
	Table   Table
	Schemas Schemas
	Input   serde.Options
	// Parquet or ORC is the format of objects; exactly one is set.
	Parquet *parquet.Options
	ORC     *orc.Options
	// BatchBytes is about how much input is decoded before it is encoded;
	// DefaultBatchBytes if zero.
	BatchBytes int
}

// OptionError is a configuration that cannot be put to use. The service answers
// InvalidArgumentException with its text.
type OptionError struct{ Message string }

func (e *OptionError) Error() string { return e.Message }

// Configure makes options of what the API was given: account and region are the
// delivery stream's. It reports *OptionError for option values that the model
// allows and that mean nothing.
func Configure(c *firehose.DataFormatConversionConfiguration, account, region string) (Options, error) {
	var o Options
	if c == nil || c.SchemaConfiguration == nil || c.InputFormatConfiguration == nil || c.InputFormatConfiguration.Deserializer == nil ||
		c.OutputFormatConfiguration == nil || c.OutputFormatConfiguration.Serializer == nil {
		return o, &OptionError{"Schema, input format and output format configurations are required when data format conversion is enabled"}
	}
	s := c.SchemaConfiguration
	o.Table = Table{
		Account: account, Region: region, Database: api.Val(s.DatabaseName), Name: api.Val(s.TableName), Version: api.Val(s.VersionId),
		CatalogID: api.Val(s.CatalogId), RoleARN: api.Val(s.RoleARN),
	}
	if o.Table.CatalogID != "" {
		o.Table.Account = o.Table.CatalogID
	}
	if r := api.Val(s.Region); r != "" {
		o.Table.Region = r
	}
	if o.Table.Version == "" {
		o.Table.Version = Latest
	}
	var err error
	if o.Input, err = input(c.InputFormatConfiguration.Deserializer); err != nil {
		return o, err
	}
	out := c.OutputFormatConfiguration.Serializer
	switch {
	case out.ParquetSerDe != nil && out.OrcSerDe != nil:
		return o, &OptionError{"More than one serializer specified"}
	case out.ParquetSerDe != nil:
		o.Parquet = parquetOptions(out.ParquetSerDe)
	case out.OrcSerDe != nil:
		o.ORC = orcOptions(out.OrcSerDe)
	default:
		return o, &OptionError{"Serializer must not be null"}
	}
	return o, nil
}

func input(in *firehose.Deserializer) (serde.Options, error) {
	var o serde.Options
	switch {
	case in.OpenXJsonSerDe != nil && in.HiveJsonSerDe != nil:
		return o, &OptionError{"More than one deserializer specified"}
	case in.OpenXJsonSerDe != nil:
		x := in.OpenXJsonSerDe
		o.Dialect = serde.OpenX
		o.CaseSensitive = x.CaseInsensitive != nil && !*x.CaseInsensitive
		o.DotsToUnderscores = api.Val(x.ConvertDotsInJsonKeysToUnderscores)
		o.Keys = x.ColumnToJsonKeyMappings
	case in.HiveJsonSerDe != nil:
		o.Dialect = serde.Hive
		o.TimestampFormats = in.HiveJsonSerDe.TimestampFormats
	default:
		return o, &OptionError{"Deserializer must not be null"}
	}
	if err := o.Check(); err != nil {
		return o, &OptionError{fmt.Sprintf("Invalid deserializer option(s): %s", strings.TrimPrefix(err.Error(), "serde: "))}
	}
	return o, nil
}

func parquetOptions(p *firehose.ParquetSerDe) *parquet.Options {
	o := &parquet.Options{
		BlockBytes: int64(api.Val(p.BlockSizeBytes)), PageBytes: int(api.Val(p.PageSizeBytes)),
		Compression: parquet.Compression(api.Val(p.Compression)), Dictionary: api.Val(p.EnableDictionaryCompression),
	}
	if api.Val(p.WriterVersion) == firehose.ParquetWriterVersionV2 {
		o.DataPageVersion = 2
	}
	return o
}

func orcOptions(p *firehose.OrcSerDe) *orc.Options {
	return &orc.Options{
		StripeBytes: int64(api.Val(p.StripeSizeBytes)), BlockBytes: int64(api.Val(p.BlockSizeBytes)),
		RowIndexStride: int(api.Val(p.RowIndexStride)), Compression: orc.Compression(api.Val(p.Compression)),
		Padding: api.Val(p.EnablePadding), PaddingTolerance: p.PaddingTolerance,
		BloomColumns: p.BloomFilterColumns, BloomFalsePositives: api.Val(p.BloomFilterFalsePositiveProbability),
		DictionaryThreshold: api.Val(p.DictionaryKeyThreshold), OldFormat: api.Val(p.FormatVersion) == firehose.OrcFormatVersionV0_11,
	}
}
