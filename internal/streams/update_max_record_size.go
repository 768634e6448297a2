package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// UpdateMaxRecordSize sets the largest record the stream takes, 1,024 to 10,240
// KiB. Lowering it does not touch stored records.
func (s *Service) UpdateMaxRecordSize(ctx context.Context, call *api.Call, in *kinesis.UpdateMaxRecordSizeInput) (*kinesis.UpdateMaxRecordSizeOutput, error) {
	for {
		st, err := s.resolve(call, nil, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, notActive(st)
		}
		if api.Val(in.MaxRecordSizeInKiB) == st.record.MaxRecordKiB {
			return &kinesis.UpdateMaxRecordSizeOutput{}, nil
		}
		conflict, err := s.begin(ctx, st, st.record, transition{Kind: kindSetting, Change: &settings{MaxRecordKiB: in.MaxRecordSizeInKiB}})
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.UpdateMaxRecordSizeOutput{}, nil
		}
	}
}
