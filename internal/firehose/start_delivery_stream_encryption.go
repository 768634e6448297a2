package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// StartDeliveryStreamEncryption has records that are put from now on sealed,
// under a customer's key or, without input, one of the service's own. On a
// delivery stream that is encrypted already it changes the key. It is ENABLING
// until the key is in use; a key that is not there or not usable ends in
// ENABLING_FAILED, and what was in force before stays so. DirectPut only.
// 25 starts and stops together in 24 hours.
func (s *Service) StartDeliveryStreamEncryption(ctx context.Context, call *api.Call, in *firehose.StartDeliveryStreamEncryptionInput) (*firehose.StartDeliveryStreamEncryptionOutput, error) {
	for {
		st, record, err := s.encryptable(call, in.DeliveryStreamName)
		if err != nil {
			return nil, err
		}
		keyType, keyARN, err := encryptionInput(call, in.DeliveryStreamEncryptionConfigurationInput)
		if err != nil {
			return nil, err
		}
		e := &record.Encryption
		if _, under, _ := s.registry.usage(accountName{st.account, st.region}, keyARN); s.options.Daily && keyARN != "" && keyARN != e.KeyARN && under >= maxStreamsUnderKey {
			return nil, limitExceeded("The KMS key %s is in use by %d delivery streams, which is the limit.", keyARN, under)
		}
		e.Status, e.KeyType, e.KeyARN, e.Failure, e.Due = firehose.DeliveryStreamEncryptionStatusEnabling, keyType, keyARN, nil, s.due()
		conflict, err := s.commit(ctx, st.update(record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &firehose.StartDeliveryStreamEncryptionOutput{}, nil
		}
	}
}
