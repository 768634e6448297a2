package analytics

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

// creation is what an application begins as.
type creation struct {
	name        *string
	description *string
	role        string
	streaming   bool
	coded       bool // version 2 has a configuration of code, maybe without any
	code        *string
	inputs      []kinesisanalytics.Input
	outputs     []kinesisanalytics.Output
	references  []kinesisanalytics.ReferenceDataSource
	logging     []kinesisanalytics.CloudWatchLoggingOption
	tags        []kinesisanalytics.Tag
}

// create makes an application. It is READY at once. Checks in order: tags, the
// rules of the configuration, the program, the name, the quota.
func (s *Service) create(ctx context.Context, call *api.Call, c creation) (*application, error) {
	name := applicationName{call.Account, call.Region, api.Val(c.name)}
	r := &record{Status: ready, Version: 1, Changes: 1, Description: c.description, Role: c.role, Streaming: c.streaming, Coded: c.coded, Code: c.code}
	var err error
	if r.Tags, err = mergeTags(nil, c.tags); err != nil {
		return nil, err
	}
	for i, in := range c.inputs {
		r.Inputs = append(r.Inputs, inputRecord{ID: newID(r, i+1), Config: in})
	}
	for i, out := range c.outputs {
		r.Outputs = append(r.Outputs, outputRecord{ID: newID(r, i+1), Config: out})
	}
	for i, ref := range c.references {
		r.References = append(r.References, referenceRecord{ID: newID(r, i+1), Config: ref, Loaded: 1})
	}
	for i, l := range c.logging {
		r.Logging = append(r.Logging, loggingRecord{ID: newID(r, i+1), Config: l})
	}
	if err := s.checkConfiguration(r); err != nil {
		return nil, err
	}
	if err := s.checkCode(r, name); err != nil {
		return nil, err
	}
	id := make([]byte, 12)
	rand.Read(id)
	r.ID = hex.EncodeToString(id)
	account := accountName{name.account, name.region}
	for {
		if s.registry.application(name) != nil {
			return nil, inUse("Application %s under account %s already exists.", name.name, name.account)
		}
		total, state := s.registry.usage(account)
		if total >= s.options.MaxApplications {
			return nil, &kinesisanalytics.LimitExceededException{Message: quotaText(name.account, s.options.MaxApplications)}
		}
		// Callers hand the instant back when they delete, and few tools keep parts
		// of a second.
		r.CreatedAt = s.now().Truncate(time.Second).UnixMilli()
		r.UpdatedAt = r.CreatedAt
		conflict, err := s.commit(ctx, applicationTable.Insert(*r, name.account, name.region, name.name), touchAccount(account, state))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &application{applicationName: name, record: *r}, nil
		}
	}
}

// remove deletes an application in a state that lasts. It is DELETING until the
// host has let go of it.
func (s *Service) remove(ctx context.Context, call *api.Call, name *string, created *time.Time) error {
	for {
		a, err := s.changeable(call, name)
		if err != nil {
			return err
		}
		if created.Unix() != a.record.CreatedAt/1000 {
			return invalid("CreateTimestamp is not that of application %s.", a.name)
		}
		next := a.record
		next.Status, next.Due = deleting, s.due()
		next.Changes++
		conflict, err := s.commit(ctx, a.update(&next))
		if err != nil || !conflict {
			return err
		}
	}
}

// start begins a run of an application that is READY. positions say where inputs
// begin; one without a position begins at NOW in the first run, and where it
// stopped in later ones.
func (s *Service) start(ctx context.Context, call *api.Call, name *string, positions []kinesisanalytics.InputConfiguration) error {
	for {
		a, err := s.resolve(call, name)
		if err != nil {
			return err
		}
		if a.record.Status != ready {
			return inUse("Application %s is in state %s; only one that is READY can be started.", a.name, a.record.Status)
		}
		next, err := a.record.clone()
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, p := range positions {
			if _, err := inputAt(next, p.Id); err != nil {
				return err
			}
			if seen[*p.Id] {
				return invalid("Input %s is given twice.", *p.Id)
			}
			seen[*p.Id] = true
		}
		for i := range next.Inputs {
			in := &next.Inputs[i]
			in.PositionAt = s.now().UnixMilli()
			if a.record.Runs == 0 || in.Position == "" {
				in.Position = kinesisanalytics.InputStartingPositionNow
			} else {
				in.Position = kinesisanalytics.InputStartingPositionLastStoppedPoint
			}
			for _, p := range positions {
				if *p.Id != in.ID || p.InputStartingPositionConfiguration == nil || p.InputStartingPositionConfiguration.InputStartingPosition == nil {
					continue
				}
				in.Position = *p.InputStartingPositionConfiguration.InputStartingPosition
				if in.Position == kinesisanalytics.InputStartingPositionTrimHorizon && in.Config.KinesisFirehoseInput != nil {
					return invalid("The starting position TRIM_HORIZON is not supported for input %s, which is a delivery stream.", in.ID)
				}
			}
		}
		if err := s.checkStart(a); err != nil {
			return err
		}
		next.Runs++
		next.Changes++
		next.Status, next.Due = starting, s.due()
		conflict, err := s.commit(ctx, a.update(next))
		if err != nil || !conflict {
			return err
		}
	}
}

// stop ends the run of an application that is RUNNING.
func (s *Service) stop(ctx context.Context, call *api.Call, name *string) error {
	for {
		a, err := s.resolve(call, name)
		if err != nil {
			return err
		}
		if a.record.Status != running {
			return inUse("Application %s is in state %s; only one that is RUNNING can be stopped.", a.name, a.record.Status)
		}
		next := a.record
		next.Changes++
		next.Status, next.Due = stopping, s.due()
		conflict, err := s.commit(ctx, a.update(&next))
		if err != nil || !conflict {
			return err
		}
	}
}

func (s *Service) addInput(ctx context.Context, call *api.Call, name *string, g guard, in *kinesisanalytics.Input) (*application, error) {
	return s.configure(ctx, call, name, g, codeChanges, func(next *record) error {
		next.Inputs = append(next.Inputs, inputRecord{ID: newID(next, 1), Config: *in})
		return nil
	})
}

func (s *Service) addProcessing(ctx context.Context, call *api.Call, name *string, g guard, id *string, p *kinesisanalytics.InputProcessingConfiguration) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		in, err := inputAt(next, id)
		if err != nil {
			return err
		}
		if in.Config.InputProcessingConfiguration != nil {
			return invalid("Input %s has an input processing configuration already.", in.ID)
		}
		in.Config.InputProcessingConfiguration = p
		return nil
	})
}

func (s *Service) deleteProcessing(ctx context.Context, call *api.Call, name *string, g guard, id *string) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		in, err := inputAt(next, id)
		if err != nil {
			return err
		}
		if in.Config.InputProcessingConfiguration == nil {
			return missing("Input %s has no input processing configuration.", in.ID)
		}
		in.Config.InputProcessingConfiguration = nil
		return nil
	})
}

func (s *Service) addOutput(ctx context.Context, call *api.Call, name *string, g guard, out *kinesisanalytics.Output) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		next.Outputs = append(next.Outputs, outputRecord{newID(next, 1), *out})
		return nil
	})
}

func (s *Service) deleteOutput(ctx context.Context, call *api.Call, name *string, g guard, id *string) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		i, err := outputAt(next, id)
		if err != nil {
			return err
		}
		next.Outputs = append(next.Outputs[:i], next.Outputs[i+1:]...)
		return nil
	})
}

func (s *Service) addReference(ctx context.Context, call *api.Call, name *string, g guard, ref *kinesisanalytics.ReferenceDataSource) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		n := applicationName{call.Account, call.Region, api.Val(name)}
		whole := s.checkCode(next, n) == nil
		next.References = append(next.References, referenceRecord{newID(next, 1), *ref, next.Version})
		if s.checkConfiguration(next) != nil {
			return nil // which configure says
		}
		// A table is what some programs wait for. One that breaks a program has a name
		// that is taken; the operation has no error of its own for that.
		if err := s.checkCode(next, n); whole && err != nil {
			return invalid("The program cannot have the reference table %s: %s", api.Val(ref.TableName), problems(err))
		}
		return nil
	})
}

func (s *Service) deleteReference(ctx context.Context, call *api.Call, name *string, g guard, id *string) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		i, err := referenceAt(next, id)
		if err != nil {
			return err
		}
		next.References = append(next.References[:i], next.References[i+1:]...)
		return nil
	})
}

func (s *Service) addLogging(ctx context.Context, call *api.Call, name *string, g guard, l *kinesisanalytics.CloudWatchLoggingOption) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		next.Logging = append(next.Logging, loggingRecord{newID(next, 1), *l})
		return nil
	})
}

func (s *Service) deleteLogging(ctx context.Context, call *api.Call, name *string, g guard, id *string) (*application, error) {
	return s.configure(ctx, call, name, g, codeStays, func(next *record) error {
		i, err := loggingAt(next, id)
		if err != nil {
			return err
		}
		next.Logging = append(next.Logging[:i], next.Logging[i+1:]...)
		return nil
	})
}
