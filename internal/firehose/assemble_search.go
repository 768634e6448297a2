package firehose

import (
	"fmt"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
	"github.com/millrace/millrace/internal/firehose/delivery"
	"github.com/millrace/millrace/internal/firehose/dest"
	"github.com/millrace/millrace/internal/firehose/dest/opensearch"
)

func (a *assembly) elasticsearch() (dest.Destination, error) {
	a.out.Kind = delivery.KindElasticsearch
	c := a.d.Elasticsearch
	return a.search(api.Val(c.DomainARN), opensearch.Config{
		Kind: opensearch.Elasticsearch, Endpoint: api.Val(c.ClusterEndpoint), Index: *c.IndexName, Type: api.Val(c.TypeName),
		Rotation: opensearch.Rotation(*c.IndexRotationPeriod), NoDocumentID: withoutID(c.DocumentIdOptions),
	})
}

func (a *assembly) openSearch() (dest.Destination, error) {
	a.out.Kind = delivery.KindOpenSearch
	c := a.d.OpenSearch
	return a.search(api.Val(c.DomainARN), opensearch.Config{
		Kind: opensearch.OpenSearch, Endpoint: api.Val(c.ClusterEndpoint), Index: *c.IndexName,
		Rotation: opensearch.Rotation(*c.IndexRotationPeriod), NoDocumentID: withoutID(c.DocumentIdOptions),
	})
}

// serverless sends no document ids: collections for time series refuse them.
func (a *assembly) serverless() (dest.Destination, error) {
	a.out.Kind = delivery.KindOpenSearchServerless
	c := a.d.Serverless
	return a.search("", opensearch.Config{Kind: opensearch.Serverless, Endpoint: *c.CollectionEndpoint, Index: *c.IndexName, NoDocumentID: true})
}

func withoutID(o *firehose.DocumentIdOptions) bool {
	return api.Val(o.DefaultDocumentIdFormat) == firehose.DefaultDocumentIdFormatNoDocumentId
}

// search builds a cluster, which its endpoint names or, for a domain, the
// operator.
func (a *assembly) search(domain string, c opensearch.Config) (dest.Destination, error) {
	a.out.Retry.FromFirstAttempt = true
	c.StreamARN = a.stream.arn()
	key := c.Endpoint
	if domain != "" {
		key = domain
	}
	if err := a.parts.Operator.adjust(&c, key); err != nil {
		return nil, err
	}
	if c.Endpoint == "" {
		return nil, fmt.Errorf("The domain %s is not known: the operator has not said where it answers", domain)
	}
	return opensearch.New(c, opensearch.Deps{Policy: a.parts.Policy, Credentials: a.parts.Sign})
}
