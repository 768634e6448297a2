package firehose

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/redshift"
	"github.com/millrace/millrace/internal/firehose/dest/s3"
	"github.com/millrace/millrace/internal/firehose/dest/snowflake"
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

var errPending = errors.New("this destination cannot be used on this server")

func (a *assembly) iceberg() (dest.Destination, error) { return nil, errPending }
