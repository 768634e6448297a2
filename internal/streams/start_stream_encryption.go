package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// StartStreamEncryption has records that are written from now on sealed under a
// key, given as key id, key ARN, alias or alias ARN; another key replaces the one
// before. Records already stored stay as they are. The key must be there and
// usable, else the KMS errors. 25 starts per stream in 24 hours.
func (s *Service) StartStreamEncryption(ctx context.Context, call *api.Call, in *kinesis.StartStreamEncryptionInput) (*kinesis.StartStreamEncryptionOutput, error) {
	if api.Val(in.EncryptionType) != kinesis.EncryptionTypeKms {
		return nil, invalidArgument("EncryptionType must be KMS to start encryption.")
	}
	for {
		st, err := s.resolve(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, notActive(st)
		}
		record := st.record
		recent := withinDay(record.EncryptionStarts, s.now())
		if s.limits.Daily && len(recent) >= 25 {
			return nil, limitExceeded("StartStreamEncryption can be called at most 25 times per stream in a rolling 24-hour period.")
		}
		dataKey, err := s.newDataKey(ctx, st, api.Val(in.KeyId))
		if err != nil {
			return nil, err
		}
		record.EncryptionStarts = addUse(recent, s.now(), 25)
		conflict, err := s.begin(ctx, st, record, transition{Kind: kindSetting, Change: &settings{KeyID: in.KeyId, DataKey: dataKey}})
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.StartStreamEncryptionOutput{}, nil
		}
	}
}
