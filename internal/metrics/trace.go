package metrics

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/wire"
)

// Traces sends spans to where the standard OTEL_ variables say.
type Traces struct {
	// Stream names the stream that a call was about, empty for none. It is set
	// before the first call, and asked for spans that are kept.
	Stream func(o *wire.Outcome) string

	provider   *sdk.TracerProvider
	propagator propagation.TextMapPropagator // nil: spans have no parents
	tracer     trace.Tracer
}

// understood are the variables of which only some values work here.
var understood = []struct {
	name   string
	values []string
}{
	{"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", []string{"gzip", "none"}},
	{"OTEL_EXPORTER_OTLP_COMPRESSION", []string{"gzip", "none"}},
	{"OTEL_TRACES_SAMPLER", []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}},
	{"OTEL_PROPAGATORS", []string{"tracecontext", "tracecontext,baggage", "baggage,tracecontext", "none"}},
}

// checkVariables refuses what the libraries would only complain about.
func checkVariables(getenv func(string) string) error {
	for _, u := range understood {
		if v := getenv(u.name); v != "" && !slices.Contains(u.values, v) {
			return fmt.Errorf("environment %s: %q is not built in; use %s", u.name, v, strings.Join(u.values, " or "))
		}
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"} {
		v := getenv(name)
		if v == "" {
			continue
		}
		if u, err := url.Parse(v); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("environment %s: %q is not a URL; write http://host:4318 or https://…", name, v)
		}
	}
	if v := getenv("OTEL_TRACES_SAMPLER_ARG"); v != "" && strings.HasSuffix(getenv("OTEL_TRACES_SAMPLER"), "traceidratio") {
		if r, err := strconv.ParseFloat(v, 64); err != nil || r < 0 || r > 1 {
			return fmt.Errorf("environment OTEL_TRACES_SAMPLER_ARG: %q is not a ratio from 0 to 1", v)
		}
	}
	return nil
}

// OpenTraces returns nil and no error when the variables do not ask for traces.
// What they ask for and this program cannot do is an error of one line.
func OpenTraces(ctx context.Context, getenv func(string) string, version string) (*Traces, error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	if getenv("OTEL_SDK_DISABLED") == "true" {
		return nil, nil
	}
	switch exporter := getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return nil, nil
	case "otlp":
	case "":
		if getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
			return nil, nil
		}
	default:
		return nil, fmt.Errorf("environment OTEL_TRACES_EXPORTER: %q is not built in; use otlp or none", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		protocol := getenv(name)
		if protocol == "" {
			continue
		}
		if protocol != "http/protobuf" {
			return nil, fmt.Errorf("environment %s: %q is not built in; use http/protobuf", name, protocol)
		}
		break
	}
	if err := checkVariables(getenv); err != nil {
		return nil, err
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "millrace"), attribute.String("service.version", version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithHost())
	if err != nil && about == nil {
		return nil, fmt.Errorf("open traces: %w", err)
	}
	p := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about))
	t := &Traces{provider: p, tracer: p.Tracer("github.com/millrace/millrace"), Stream: func(*wire.Outcome) string { return "" }}
	if getenv("OTEL_PROPAGATORS") != "none" {
		t.propagator = propagation.TraceContext{}
	}
	return t, nil
}

// Begin is wire.Options.Trace.
func (t *Traces) Begin(ctx context.Context, r *http.Request, call *api.Call) (context.Context, func(*wire.Outcome)) {
	if t.propagator != nil {
		ctx = t.propagator.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	op := call.Operation
	ctx, span := t.tracer.Start(ctx, op.Service.ID+"."+op.Name, trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(call.Time),
		trace.WithAttributes(
			attribute.String("rpc.system", "aws-api"),
			attribute.String("rpc.service", op.Service.ID),
			attribute.String("rpc.method", op.Name),
			attribute.String("aws.request_id", call.RequestID),
			attribute.String("cloud.region", call.Region),
			attribute.String("cloud.account.id", call.Account),
			attribute.String("client.address", call.Remote.Addr().String()),
		))
	return ctx, func(o *wire.Outcome) {
		defer span.End()
		if !span.IsRecording() {
			return
		}
		if stream := t.Stream(o); stream != "" {
			span.SetAttributes(attribute.String("aws.kinesis.stream_name", stream))
		}
		span.SetAttributes(attribute.Int("http.response.status_code", o.Status),
			attribute.Int64("http.request.body.size", o.BytesIn), attribute.Int64("http.response.body.size", o.BytesOut))
		if o.Code != "" {
			span.SetAttributes(attribute.String("error.type", o.Code))
			if o.Status >= 500 {
				span.SetStatus(codes.Error, o.Code)
			}
		}
	}
}

// Close sends what is left.
func (t *Traces) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }
