package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/millrace/millrace/internal/api/cloudwatchlogs"
	"github.com/millrace/millrace/internal/firehose/process"
	"github.com/millrace/millrace/internal/functions"
	"github.com/millrace/millrace/internal/logs"
	"github.com/millrace/millrace/internal/outbound"
	"github.com/millrace/millrace/internal/sigv4"
)

// functionsDir holds local functions, unless the operator names another.
const functionsDir = "functions"

// openLogs serves log groups. What runs later logs into them, also while it ends.
func (s *Server) openLogs(ctx context.Context) error {
	var err error
	s.logs, err = logs.New(ctx, logs.Options{Log: s.log, Meta: s.meta, Now: s.options.Now, Logger: s.logger})
	if err != nil {
		return explainData(s.config.DataPath(), err)
	}
	s.onStopBefore("API", "logs", func(ctx context.Context) error { s.logs.Flush(ctx); return nil })
	s.mux.Register(cloudwatchlogs.Service, s.logs, cloudwatchlogs.Bind(s.logs))
	return nil
}

// openFunctions opens the registry of functions and serves the Lambda API.
func (s *Server) openFunctions(context.Context) error {
	policy, err := outbound.ParsePolicy(s.config.Outbound, s.config.OutboundAllow)
	if err != nil {
		return fmt.Errorf("outbound-allow: %w", err)
	}
	o := functions.Options{
		Dir: s.config.Functions, Account: s.config.Account, Region: s.config.Region, Outbound: policy,
		MaxProcesses: s.config.FunctionProcesses, Environment: []string{"AWS_ENDPOINT_URL=" + s.localEndpoint()},
		Logs: s.logs, Logger: s.logger, Now: s.options.Now,
	}
	if o.Dir == "" && !s.config.Ephemeral && s.options.Files == nil {
		o.Dir = filepath.Join(s.config.DataPath(), functionsDir)
	}
	var verifier *sigv4.Verifier
	if s.config.Auth == "keys" {
		verifier = sigv4.NewVerifier(s.directory, sigv4.Options{Window: s.config.ClockWindow, Now: s.options.Now})
	} else {
		// Whoever calls is let in; SDKs want to sign all the same.
		o.Environment = append(o.Environment, "AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local")
	}
	if s.functions, err = functions.New(o); err != nil {
		return fmt.Errorf("functions: %w", err)
	}
	s.onStopBefore("API", "functions", func(context.Context) error { return s.functions.Close() })
	s.mux.Route(functions.Recognises, functions.NewHandler(functions.HandlerOptions{
		Registry: s.functions, Directory: s.directory, Verifier: verifier, Now: s.options.Now, Logger: s.logger,
	}))
	return nil
}

// localEndpoint is where processes on this machine reach the API.
func (s *Server) localEndpoint() string {
	host, port, err := net.SplitHostPort(s.Address())
	if err != nil {
		return "http://" + s.Address()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// functionInvoker runs functions for delivery streams, which rather wait for a
// function that is busy than be refused.
type functionInvoker struct{ registry *functions.Registry }

func (f functionInvoker) Invoke(ctx context.Context, arn string, payload []byte) (process.Answer, error) {
	answer, err := f.registry.Invoke(ctx, functions.Request{Function: arn, Payload: payload, Wait: true})
	if err != nil {
		var refused *functions.Error
		if errors.As(err, &refused) {
			return process.Answer{}, &process.InvokeError{Code: refused.Delivery, Message: refused.Message, Throttled: refused.Throttled, Err: err}
		}
		return process.Answer{}, err
	}
	return process.Answer{Payload: answer.Payload, FunctionError: answer.FunctionError}, nil
}
