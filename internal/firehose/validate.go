package firehose

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/convert"
)

// The rules of a destination that the model does not state. They hold for what
// is created and for what an update results in. Each says one sentence; the
// first that is broken is the answer. What has to ask somebody else comes last.

// checker checks one destination.
type checker struct {
	service *Service
	call    *api.Call
	source  firehose.DeliveryStreamType
	d       *destination
	shared  *shared
}

// validate checks a destination as its owner gave it.
func (s *Service) validate(ctx context.Context, call *api.Call, source firehose.DeliveryStreamType, d *destination) error {
	c := &checker{service: s, call: call, source: source, d: d, shared: d.shared()}
	for _, check := range []func() error{
		c.hints, c.kindRules, c.backups, c.encryptions, c.logging, c.secrets, c.processing, c.conversion, c.prefixes,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	if err := c.roles(); err != nil {
		return err
	}
	if err := c.table(ctx); err != nil {
		return err
	}
	return s.tryAssemble(ctx, call, d)
}

// table asks the catalog for the schema of a conversion.
func (c *checker) table(ctx context.Context) error {
	schemas := c.service.options.Parts.Schemas
	if !converts(c.d.ExtendedS3) || schemas == nil {
		return nil
	}
	o, err := convert.Configure(c.d.ExtendedS3.DataFormatConversionConfiguration, c.call.Account, c.call.Region)
	if err != nil {
		return invalidArgument("%s", err.Error())
	}
	if _, err := schemas.Schema(ctx, o.Table); err != nil {
		var fault *convert.SchemaError
		if !errors.As(err, &fault) {
			return err
		}
		return invalidArgument("Access to the schema of table %s.%s failed: %sException: %s", o.Table.Database, o.Table.Name, fault.Code, fault.Message)
	}
	return nil
}

// s3 are the S3 blocks of the destination, by what they are called in texts.
func (c *checker) s3() map[string]*firehose.S3DestinationConfiguration {
	blocks := map[string]*firehose.S3DestinationConfiguration{}
	if c.shared.S3Configuration != nil {
		blocks["S3Configuration"] = c.shared.S3Configuration
	}
	if c.shared.S3BackupConfiguration != nil {
		blocks["S3BackupConfiguration"] = c.shared.S3BackupConfiguration
	}
	return blocks
}

func (c *checker) hints() error {
	pair := func(h *firehose.BufferingHints) error {
		if h != nil && (h.SizeInMBs == nil) != (h.IntervalInSeconds == nil) {
			return invalidArgument("Both SizeInMBs and IntervalInSeconds of BufferingHints are needed: if one is specified, the other must be too.")
		}
		return nil
	}
	switch c.d.kind() {
	case kindSplunk, kindSnowflake: // have defaults for each
	default:
		if err := pair(c.shared.BufferingHints); err != nil {
			return err
		}
	}
	for name, block := range c.s3() {
		if err := pair(block.BufferingHints); err != nil {
			return err
		}
		staging := name == "S3Configuration" && c.d.kind() == kindRedshift
		if h := block.BufferingHints; h != nil && !staging && *h.IntervalInSeconds < 60 {
			return invalidArgument("IntervalInSeconds of the BufferingHints of %s must be at least 60: zero buffering is not available for backups.", name)
		}
	}
	if c.d.kind() != kindS3 {
		return nil
	}
	size, interval := int32(5), int32(300)
	explicit := c.shared.BufferingHints != nil
	converting := converts(c.d.ExtendedS3)
	switch {
	case explicit:
		size, interval = *c.shared.BufferingHints.SizeInMBs, *c.shared.BufferingHints.IntervalInSeconds
	case converting:
		size = 128
	}
	if converting && size < 64 {
		return invalidArgument("BufferingHints.SizeInMBs must be at least 64 when data format conversion is enabled.")
	}
	if partitions(c.d.ExtendedS3) {
		if size < 64 {
			return invalidArgument("BufferingHints.SizeInMBs must be at least 64 when Dynamic Partitioning is enabled.")
		}
		if interval < 60 {
			return invalidArgument("BufferingHints.IntervalInSeconds must be at least 60 when Dynamic Partitioning is enabled.")
		}
	}
	return nil
}

// partitions reports whether dynamic partitioning is on.
func partitions(c *firehose.ExtendedS3DestinationConfiguration) bool {
	return c != nil && c.DynamicPartitioningConfiguration != nil && api.Val(c.DynamicPartitioningConfiguration.Enabled)
}

// converts reports whether format conversion is on: it is, unless it is switched
// off.
func converts(c *firehose.ExtendedS3DestinationConfiguration) bool {
	if c == nil || c.DataFormatConversionConfiguration == nil {
		return false
	}
	return c.DataFormatConversionConfiguration.Enabled == nil || *c.DataFormatConversionConfiguration.Enabled
}

// kindRules are what one kind of destination wants.
func (c *checker) kindRules() error {
	switch d := c.d; d.kind() {
	case kindS3:
		if zone := api.Val(d.ExtendedS3.CustomTimeZone); zone != "" {
			if _, err := location(zone); err != nil {
				return invalidArgument("CustomTimeZone %s is not a valid time zone.", zone)
			}
		}
	case kindRedshift:
		return c.redshift(d.Redshift)
	case kindElasticsearch:
		return c.search(d.Elasticsearch.DomainARN, d.Elasticsearch.ClusterEndpoint)
	case kindOpenSearch:
		if api.Val(d.OpenSearch.TypeName) != "" {
			return invalidArgument("Types are deprecated in OpenSearch and in Elasticsearch 7 and later: TypeName must be empty.")
		}
		return c.search(d.OpenSearch.DomainARN, d.OpenSearch.ClusterEndpoint)
	case kindServerless:
		if api.Val(d.Serverless.CollectionEndpoint) == "" {
			return invalidArgument("Provide the collection endpoint in CollectionEndpoint.")
		}
	case kindSplunk:
		return splunkRules(d.Splunk)
	case kindHTTP:
		return httpRules(d.HTTP)
	case kindSnowflake:
		return snowflakeRules(d.Snowflake)
	case kindIceberg:
		return icebergRules(d.Iceberg)
	}
	return nil
}

// location finds a time zone by the name that callers give it.
func location(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	if name == "Local" {
		return nil, errors.New("the time zone of this machine is nobody's business")
	}
	return time.LoadLocation(name)
}

func usesSecret(c *firehose.SecretsManagerConfiguration) bool { return c != nil && api.Val(c.Enabled) }

func (c *checker) redshift(r *firehose.RedshiftDestinationConfiguration) error {
	if !usesSecret(r.SecretsManagerConfiguration) {
		if r.Password == nil {
			return invalidArgument("Password is required when SecretsManagerConfiguration is not enabled.")
		}
		if r.Username == nil {
			return invalidArgument("Username is required when SecretsManagerConfiguration is not enabled.")
		}
	}
	s3 := r.S3Configuration
	switch format := api.Val(s3.CompressionFormat); format {
	case firehose.CompressionFormatSnappy, firehose.CompressionFormatZip, firehose.CompressionFormatHadoopSnappy:
		return invalidArgument("CompressionFormat %s is not supported for a Redshift destination: COPY cannot read it. Use UNCOMPRESSED or GZIP.", format)
	}
	if strings.Contains(api.Val(s3.Prefix), "!{") {
		return invalidArgument("Prefix of a Redshift destination's S3Configuration must not contain expressions.")
	}
	if api.Val(s3.ErrorOutputPrefix) != "" {
		return invalidArgument("ErrorOutputPrefix of a Redshift destination's S3Configuration must be null.")
	}
	return nil
}

func (c *checker) search(domain, endpoint *string) error {
	if (domain == nil) == (endpoint == nil) {
		return invalidArgument("Provide either the Elasticsearch or OpenSearch cluster endpoint or domain arn, not both.")
	}
	return nil
}

func splunkRules(c *firehose.SplunkDestinationConfiguration) error {
	u, err := url.Parse(*c.HECEndpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return invalidArgument("Invalid HECEndpoint %s: it must have the form https://host:port.", *c.HECEndpoint)
	}
	if c.HECToken == nil && !usesSecret(c.SecretsManagerConfiguration) {
		return invalidArgument("HECToken is required when SecretsManagerConfiguration is not enabled.")
	}
	return nil
}

func httpRules(c *firehose.HttpEndpointDestinationConfiguration) error {
	u, err := url.Parse(*c.EndpointConfiguration.Url)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return invalidArgument("Url %s of the HTTP endpoint is not valid.", *c.EndpointConfiguration.Url)
	}
	if r := c.RequestConfiguration; r != nil {
		seen := map[string]bool{}
		for _, a := range r.CommonAttributes {
			if seen[*a.AttributeName] {
				return invalidArgument("Common attributes have duplicate name %s.", *a.AttributeName)
			}
			seen[*a.AttributeName] = true
		}
	}
	return nil
}

func snowflakeRules(c *firehose.SnowflakeDestinationConfiguration) error {
	if !usesSecret(c.SecretsManagerConfiguration) {
		if c.User == nil {
			return invalidArgument("User must be provided when SecretsManagerConfiguration is not enabled.")
		}
		if c.PrivateKey == nil {
			return invalidArgument("PrivateKey must be provided when SecretsManagerConfiguration is not enabled.")
		}
	}
	switch api.Val(c.DataLoadingOption) {
	case firehose.SnowflakeDataLoadingOptionVariantContentAndMetadataMapping:
		if api.Val(c.ContentColumnName) == "" || api.Val(c.MetaDataColumnName) == "" {
			return invalidArgument("Must provide ContentColumnName and MetaDataColumnName for DataLoadingOption VARIANT_CONTENT_AND_METADATA_MAPPING.")
		}
	case firehose.SnowflakeDataLoadingOptionVariantContentMapping:
		if api.Val(c.ContentColumnName) == "" {
			return invalidArgument("Must provide ContentColumnName for DataLoadingOption VARIANT_CONTENT_MAPPING.")
		}
	}
	if r := c.SnowflakeRoleConfiguration; r != nil && api.Val(r.Enabled) && api.Val(r.SnowflakeRole) == "" {
		return invalidArgument("Must provide SnowflakeRole when SnowflakeRoleConfiguration is enabled.")
	}
	return nil
}

func icebergRules(c *firehose.IcebergDestinationConfiguration) error {
	if api.Val(c.S3BackupMode) == firehose.IcebergS3BackupModeAllData {
		return invalidArgument("S3BackupMode AllData is not supported for an Iceberg destination; only FailedDataOnly is.")
	}
	if c.CatalogConfiguration.CatalogARN == nil && c.CatalogConfiguration.WarehouseLocation == nil {
		return invalidArgument("CatalogConfiguration must provide CatalogARN or WarehouseLocation.")
	}
	seen := map[[2]string]bool{}
	for _, t := range c.DestinationTableConfigurationList {
		name := [2]string{*t.DestinationDatabaseName, *t.DestinationTableName}
		if seen[name] {
			return invalidArgument("DestinationTableConfigurationList has more than one entry for table %s.%s.", name[0], name[1])
		}
		seen[name] = true
	}
	return nil
}

func (c *checker) backups() error {
	switch c.d.kind() {
	case kindS3, kindRedshift:
		if api.Val(c.shared.S3BackupMode) == string(firehose.S3BackupModeEnabled) && c.shared.S3BackupConfiguration == nil {
			return invalidArgument("S3 backup destination configuration is required when S3BackupMode is Enabled.")
		}
	}
	return nil
}

func (c *checker) encryptions() error {
	check := func(e *firehose.EncryptionConfiguration) error {
		if e == nil || e.KMSEncryptionConfig == nil {
			return nil
		}
		if e.NoEncryptionConfig != nil {
			return invalidArgument("NoEncryptionConfig and KMSEncryptionConfig are mutually exclusive.")
		}
		if key := *e.KMSEncryptionConfig.AWSKMSKeyARN; arnRegion(key) != c.call.Region {
			return invalidArgument("The region of the KMS key %s does not match the region of the bucket, %s: region mismatch.", key, c.call.Region)
		}
		return nil
	}
	if c.d.kind() == kindS3 {
		if err := check(c.d.ExtendedS3.EncryptionConfiguration); err != nil {
			return err
		}
	}
	for _, block := range c.s3() {
		if err := check(block.EncryptionConfiguration); err != nil {
			return err
		}
	}
	return nil
}

// arnRegion is the fourth part of an ARN.
func arnRegion(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[3]
}

// arnAccount is the fifth part of an ARN.
func arnAccount(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[4]
}

func (c *checker) logging() error {
	all := []*firehose.CloudWatchLoggingOptions{c.shared.CloudWatchLoggingOptions}
	for _, block := range c.s3() {
		all = append(all, block.CloudWatchLoggingOptions)
	}
	for _, l := range all {
		if l != nil && api.Val(l.Enabled) && (api.Val(l.LogGroupName) == "" || api.Val(l.LogStreamName) == "") {
			return invalidArgument("Log group and log stream names required when CloudWatch logging is enabled.")
		}
	}
	return nil
}

func (c *checker) secrets() error {
	m := c.shared.SecretsManagerConfiguration
	if !usesSecret(m) {
		return nil
	}
	if m.SecretARN == nil {
		return invalidArgument("Invalid secret ARN: null")
	}
	if arnRegion(*m.SecretARN) != c.call.Region {
		return invalidArgument("Invalid secret ARN: %s: the secret must be in the region of the delivery stream, %s.", *m.SecretARN, c.call.Region)
	}
	if c.d.kind() == kindSplunk && m.RoleARN == nil {
		return invalidArgument("RoleARN is required in SecretsManagerConfiguration for a Splunk destination.")
	}
	return nil
}

// roles asks for every role that the destination names, if there is somebody to
// ask. The text about a role that cannot be assumed is one that clients try
// again for: roles take time to be known.
func (c *checker) roles() error {
	var all []string
	add := func(arn *string) {
		if arn != nil {
			all = append(all, *arn)
		}
	}
	add(c.shared.RoleARN)
	for _, block := range c.s3() {
		add(block.RoleARN)
	}
	if v := c.shared.VpcConfiguration; v != nil {
		add(v.RoleARN)
	}
	if m := c.shared.SecretsManagerConfiguration; m != nil {
		add(m.RoleARN)
	}
	if e := c.d.ExtendedS3; e != nil && converts(e) {
		add(e.DataFormatConversionConfiguration.SchemaConfiguration.RoleARN)
	}
	return c.service.checkRoles(c.call, all...)
}

func (s *Service) checkRoles(call *api.Call, arns ...string) error {
	if s.options.Roles == nil {
		return nil
	}
	for _, arn := range arns {
		if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 && parts[4] != call.Account {
			return invalidArgument("Cross-account pass role is not allowed.")
		}
		if err := s.options.Roles.Assumable(arn); err != nil {
			return invalidArgument("Firehose is unable to assume role %s. Please check the role provided.", arn)
		}
	}
	return nil
}
