package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// StopDeliveryStreamEncryption has records that are put from now on stored as
// they are; those stored before stay sealed until they are delivered. It is
// DISABLING first. One that is not encrypted stays so, successfully.
func (s *Service) StopDeliveryStreamEncryption(ctx context.Context, call *api.Call, in *firehose.StopDeliveryStreamEncryptionInput) (*firehose.StopDeliveryStreamEncryptionOutput, error) {
	for {
		st, record, err := s.encryptable(call, in.DeliveryStreamName)
		if err != nil {
			return nil, err
		}
		e := &record.Encryption
		if e.Status != "" && e.Status != firehose.DeliveryStreamEncryptionStatusDisabled {
			e.Status, e.Failure, e.Due = firehose.DeliveryStreamEncryptionStatusDisabling, nil, s.due()
		}
		conflict, err := s.commit(ctx, st.update(record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &firehose.StopDeliveryStreamEncryptionOutput{}, nil
		}
	}
}
