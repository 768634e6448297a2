package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// errUnknown says that a client has no such operation.
var errUnknown = errors.New("the client does not know the operation")

// errUnknownMember says that a client's operation has no such member.
var errUnknownMember = errors.New("the client does not know the member")

// Client calls operations by name.
type Client interface {
	// Call returns the reply, a *Failure, errUnknown, or what went wrong in
	// the client.
	//
	// For SubscribeToShard the reply is {Events: [...], Ended: bool, Failure}
	// and comes when so many records have arrived, or the stream has ended.
	Call(ctx context.Context, op string, in M, records int) (M, error)
	Close() error
}

// process is a client in another language.
type process struct {
	mu      sync.Mutex
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	errors  bytes.Buffer
}

func startProcess(env []string, name string, args ...string) (*process, error) {
	p := &process{command: exec.Command(name, args...)}
	p.command.Env = append(os.Environ(), env...)
	p.command.Stderr = &p.errors
	var err error
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) Call(ctx context.Context, op string, in M, records int) (M, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line, err := json.Marshal(M{"op": op, "in": toJSON(in), "records": records})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { p.command.Process.Kill() })
	defer stop()
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("client process: %w: %s", err, p.errors.String())
	}
	raw, err := p.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("client process: %w: %s", err, p.errors.String())
	}
	var answer struct {
		Out     map[string]any
		Error   *Failure
		Unknown bool
		Member  string // that is unknown
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&answer); err != nil {
		return nil, fmt.Errorf("client process said %q: %w", raw, err)
	}
	switch {
	case answer.Member != "":
		return nil, fmt.Errorf("%s: %w", answer.Member, errUnknownMember)
	case answer.Unknown:
		return nil, errUnknown
	case answer.Error != nil:
		return nil, answer.Error
	}
	return fromJSON(answer.Out).(M), nil
}

func (p *process) Close() error {
	p.in.Close()
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() { p.command.Wait(); close(done) })
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		p.command.Process.Kill()
	}
	wait.Wait()
	return nil
}

// goClient is a client of the AWS SDK for Go, called by reflection.
type goClient struct{ sdk any }

func (c *goClient) Close() error { return nil }

func (c *goClient) Call(ctx context.Context, op string, in M, records int) (M, error) {
	method := reflect.ValueOf(c.sdk).MethodByName(op)
	if !method.IsValid() {
		return nil, errUnknown
	}
	input := reflect.New(method.Type().In(1).Elem())
	if err := assign(input.Elem(), in); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	results := method.Call([]reflect.Value{reflect.ValueOf(ctx), input})
	if err, _ := results[1].Interface().(error); err != nil {
		return nil, goFailure(err)
	}
	if out, ok := results[0].Interface().(*kinesis.SubscribeToShardOutput); ok {
		return goEvents(out, records)
	}
	out, _ := plain(results[0].Elem()).(M)
	delete(out, "ResultMetadata")
	return out, nil
}

func goFailure(err error) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return err
	}
	f := &Failure{Code: api.ErrorCode(), Message: api.ErrorMessage()}
	var reply *smithyhttp.ResponseError
	if errors.As(err, &reply) {
		f.Status = reply.HTTPStatusCode()
	}
	return f
}

func goEvents(out *kinesis.SubscribeToShardOutput, wanted int) (M, error) {
	stream := out.GetStream()
	defer stream.Close()
	events, n := []any{}, 0
	for e := range stream.Events() {
		m, ok := e.(*types.SubscribeToShardEventStreamMemberSubscribeToShardEvent)
		if !ok {
			continue
		}
		events = append(events, plain(reflect.ValueOf(m.Value)))
		n += len(m.Value.Records)
		if wanted > 0 && n >= wanted {
			return M{"Events": events, "Ended": false}, nil
		}
	}
	result := M{"Events": events, "Ended": true}
	if err := stream.Err(); err != nil {
		f := goFailure(err)
		if api, ok := f.(*Failure); ok {
			result["Failure"] = M{"code": api.Code, "message": api.Message}
		} else {
			return nil, err
		}
	}
	return result, nil
}

// assign puts a structure in the service's names into an SDK structure.
func assign(to reflect.Value, v any) error {
	if to.Kind() == reflect.Pointer {
		if to.IsNil() {
			to.Set(reflect.New(to.Type().Elem()))
		}
		return assign(to.Elem(), v)
	}
	switch v := v.(type) {
	case M:
		if to.Kind() == reflect.Map {
			to.Set(reflect.MakeMap(to.Type()))
			for k, e := range v {
				item := reflect.New(to.Type().Elem()).Elem()
				if err := assign(item, e); err != nil {
					return err
				}
				to.SetMapIndex(reflect.ValueOf(k), item)
			}
			return nil
		}
		for k, e := range v {
			f := to.FieldByName(k)
			if !f.IsValid() {
				return fmt.Errorf("%s has no member %s: %w", to.Type(), k, errUnknownMember)
			}
			if err := assign(f, e); err != nil {
				return err
			}
		}
		return nil
	case []any:
		to.Set(reflect.MakeSlice(to.Type(), len(v), len(v)))
		for i, e := range v {
			if err := assign(to.Index(i), e); err != nil {
				return err
			}
		}
		return nil
	}
	to.Set(reflect.ValueOf(v).Convert(to.Type()))
	return nil
}

// plain is the reverse of assign; members that are not set are left out.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Pointer:
		return plain(v.Elem())
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			return t
		}
		out := M{}
		for i := range v.NumField() {
			f := v.Field(i)
			if !v.Type().Field(i).IsExported() || (f.Kind() != reflect.Struct && f.IsZero()) {
				continue
			}
			out[v.Type().Field(i).Name] = plain(f)
		}
		return out
	case reflect.Slice:
		if b, ok := v.Interface().([]byte); ok {
			return b
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i))
		}
		return out
	case reflect.Map:
		out := M{}
		for k, e := range v.Seq2() {
			out[k.String()] = plain(e)
		}
		return out
	case reflect.Int32, reflect.Int64, reflect.Int:
		return v.Int()
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return v.Bool()
	}
	return v.Interface()
}
