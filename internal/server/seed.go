package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/config"
	"github.com/millrace/millrace/internal/iam"
)

// seedStreams creates the streams that settings name and that do not exist.
func (s *Server) seedStreams(ctx context.Context) error {
	wanted, err := config.ParseStreams(s.config.InitializeStreams, s.config.Region)
	if err != nil {
		return fmt.Errorf("initialize-streams: %w", err)
	}
	if s.config.Seed != "" {
		seed, err := s.config.ReadSeed(s.config.Seed)
		if err != nil {
			return err
		}
		wanted = append(wanted, seed.Streams...)
	}
	for _, st := range wanted {
		if err := s.seedStream(ctx, st); err != nil {
			return fmt.Errorf("create stream %s in %s: %w", st.Name, st.Region, err)
		}
	}
	return nil
}

func (s *Server) seedStream(ctx context.Context, st config.SeedStream) error {
	call := func(o *api.Operation) *api.Call {
		return &api.Call{
			Principal: iam.RootPrincipal(s.config.Account, ""), Account: s.config.Account, Region: st.Region, Partition: "aws",
			Operation: o, Time: s.options.Now(),
		}
	}
	in := &kinesis.CreateStreamInput{StreamName: &st.Name, Tags: st.Tags}
	if st.OnDemand {
		in.StreamModeDetails = &kinesis.StreamModeDetails{StreamMode: api.Ptr(kinesis.StreamModeOnDemand)}
	} else {
		in.ShardCount = api.Ptr(int32(st.Shards))
	}
	if err := kinesis.OpCreateStream.Validate(in); err != nil {
		return err
	}
	_, err := s.streams.CreateStream(ctx, call(kinesis.OpCreateStream), in)
	if _, exists := errors.AsType[*kinesis.ResourceInUseException](err); exists {
		s.logger.Debug("seeded stream exists", "stream", st.Name, "region", st.Region)
		return nil
	}
	if err != nil {
		return err
	}
	s.logger.Info("stream created", "stream", st.Name, "region", st.Region, "shards", st.Shards)
	if st.RetentionHours <= 24 {
		return nil
	}
	// With a state delay the stream is not ACTIVE yet.
	for {
		_, err := s.streams.IncreaseStreamRetentionPeriod(ctx, call(kinesis.OpIncreaseStreamRetentionPeriod), &kinesis.IncreaseStreamRetentionPeriodInput{
			StreamName: &st.Name, RetentionPeriodHours: api.Ptr(int32(st.RetentionHours)),
		})
		if _, busy := errors.AsType[*kinesis.ResourceInUseException](err); !busy {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
