package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/iceberg"
	"github.com/millrace/millrace/internal/firehose/dest/redshift"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/dest/snowflake"
	"github.com/millrace/millrace/internal/outbound"
)

// credentials gives user and password of a secret, or inline ones.
func (p *Parts) credentials(secret, user, password string) func(context.Context) (string, string, error) {
	if secret == "" {
		if user == "" {
			return nil
		}
		return func(context.Context) (string, string, error) { return user, password, nil }
	}
	return func(ctx context.Context) (string, string, error) {
		if p.Secrets == nil {
			return "", "", fmt.Errorf("secret %s: this server has no secrets", secret)
		}
		s, err := p.Secrets.Resolve(ctx, secret)
		if err != nil {
			return "", "", err
		}
		return s["username"], s["password"], nil
	}
}

// redshift stages objects and has them loaded; a load is tried every five
// minutes, counted from the first attempt.
func (a *assembly) redshift() (dest.Destination, error) {
	r := a.d.Redshift
	a.out.Kind = delivery.KindRedshift
	a.out.Hints = hints(r.S3Configuration.BufferingHints)
	a.out.Retry.FromFirstAttempt = true
	a.out.Retry.Initial, a.out.Retry.Max, a.out.Retry.Factor = 5*time.Minute, 5*time.Minute, 1
	stage, err := a.objectsOf(r.S3Configuration)
	if err != nil {
		return nil, err
	}
	config := redshift.Config{
		URL: *r.ClusterJDBCURL, Table: *r.CopyCommand.DataTableName, Columns: api.Val(r.CopyCommand.DataTableColumns), Options: api.Val(r.CopyCommand.CopyOptions),
		RoleARN: *r.RoleARN, Bucket: stage.Bucket,
	}
	if err := a.parts.Operator.adjust(&config.Endpoint, *r.ClusterJDBCURL); err != nil {
		return nil, err
	}
	return redshift.New(config, redshift.Deps{
		Stage: s3.New(stage), Store: a.store(*r.S3Configuration.RoleARN), Dial: a.parts.Policy.DialContext,
		Credentials: a.parts.credentials(secretARN(r.SecretsManagerConfiguration), api.Val(r.Username), api.Val(r.Password)),
	})
}

func (a *assembly) snowflake() (dest.Destination, error) {
	c := a.d.Snowflake
	a.out.Kind = delivery.KindSnowflake
	config := snowflake.Config{
		AccountURL: *c.AccountUrl, User: api.Val(c.User), PrivateKey: api.Val(c.PrivateKey), Passphrase: api.Val(c.KeyPassphrase),
		Secret: secretARN(c.SecretsManagerConfiguration), Database: *c.Database, Schema: *c.Schema, Table: *c.Table,
		Mapping: snowflake.Mapping(*c.DataLoadingOption), ContentColumn: api.Val(c.ContentColumnName), MetadataColumn: api.Val(c.MetaDataColumnName),
	}
	if r := c.SnowflakeRoleConfiguration; r != nil && api.Val(r.Enabled) {
		config.Role = api.Val(r.SnowflakeRole)
	}
	if err := a.parts.Operator.adjust(&config, *c.AccountUrl); err != nil {
		return nil, err
	}
	return snowflake.New(config, snowflake.Deps{Policy: a.parts.Policy, Secrets: a.parts.Secrets})
}

// iceberg writes to the catalog that the operator has set for the ARN or the
// warehouse, else to one of files in the warehouse itself.
func (a *assembly) iceberg() (dest.Destination, error) {
	c := a.d.Iceberg
	a.out.Kind = delivery.KindIceberg
	arn, warehouse := api.Val(c.CatalogConfiguration.CatalogARN), api.Val(c.CatalogConfiguration.WarehouseLocation)
	config := iceberg.Config{
		AppendOnly:      api.Val(c.AppendOnly),
		SchemaEvolution: c.SchemaEvolutionConfiguration != nil && api.Val(c.SchemaEvolutionConfiguration.Enabled),
		TableCreation:   c.TableCreationConfiguration != nil && api.Val(c.TableCreationConfiguration.Enabled),
	}
	if err := a.parts.Operator.adjust(&config.Catalog, arn, warehouse); err != nil {
		return nil, err
	}
	if config.Catalog.Warehouse == "" {
		config.Catalog.Warehouse = warehouse
	}
	if config.Catalog.Type == "" {
		if warehouse == "" {
			return nil, fmt.Errorf("The catalog %s is not known: the operator has not said where it is, and there is no WarehouseLocation", arn)
		}
		config.Catalog.Type = "files"
	}
	for _, t := range c.DestinationTableConfigurationList {
		table := iceberg.Table{Database: *t.DestinationDatabaseName, Name: *t.DestinationTableName, UniqueKeys: t.UniqueKeys}
		if t.PartitionSpec != nil {
			for _, f := range t.PartitionSpec.Identity {
				table.Partition = append(table.Partition, *f.SourceName)
			}
		}
		if prefix := api.Val(t.S3ErrorOutputPrefix); prefix != "" {
			table.ErrorOutput = table.Database + "." + table.Name
			if err := a.errorsOf(table.ErrorOutput, prefix); err != nil {
				return nil, err
			}
		}
		config.Tables = append(config.Tables, table)
	}
	client, err := outbound.Client(outbound.Options{Policy: a.parts.Policy})
	if err != nil {
		return nil, err
	}
	deps := iceberg.Deps{Store: a.store(*c.RoleARN), Client: client, Dial: a.parts.Policy.DialContext}
	if sign := a.parts.Sign; sign != nil {
		deps.Credentials = func(ctx context.Context) (aws.Credentials, error) {
			c, err := sign(ctx)
			return aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey, SessionToken: c.SessionToken}, err
		}
	}
	d, err := iceberg.New(config, deps)
	if err != nil {
		return nil, err
	}
	// A table that is not there is told when a delivery stream is created or
	// changed, not when the server starts.
	if a.id == "" && !config.TableCreation {
		for _, t := range config.Tables {
			if err := d.Check(a.ctx, t.Database, t.Name); err != nil {
				return nil, errors.Join(err, d.Close())
			}
		}
	}
	return d, nil
}
