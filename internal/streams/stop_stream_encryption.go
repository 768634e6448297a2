package streams

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
)

// StopStreamEncryption has records that are written from now on stored as they
// are. Those stored before stay sealed and readable. A stream that is not
// encrypted stays so, successfully.
func (s *Service) StopStreamEncryption(ctx context.Context, call *api.Call, in *kinesis.StopStreamEncryptionInput) (*kinesis.StopStreamEncryptionOutput, error) {
	if api.Val(in.EncryptionType) != kinesis.EncryptionTypeKms {
		return nil, invalidArgument("EncryptionType must be KMS to stop encryption.")
	}
	for {
		st, err := s.resolve(call, in.StreamName, in.StreamARN)
		if err != nil {
			return nil, err
		}
		if st.status != kinesis.StreamStatusActive {
			return nil, notActive(st)
		}
		if st.encryption == nil {
			return &kinesis.StopStreamEncryptionOutput{}, nil
		}
		conflict, err := s.begin(ctx, st, st.record, transition{Kind: kindSetting, Change: &settings{KeyID: new(string)}})
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &kinesis.StopStreamEncryptionOutput{}, nil
		}
	}
}
