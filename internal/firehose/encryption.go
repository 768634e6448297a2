package firehose

import (
	"strings"
	"time"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// maxEncryptionCalls bounds the starts and stops of encryption of a delivery
// stream in 24 hours, together.
const maxEncryptionCalls = 25

// maxStreamsUnderKey bounds the delivery streams under one customer key.
const maxStreamsUnderKey = 500

// encryptionInput checks how a caller wants records encrypted. Nil is a key of
// the service's own.
func encryptionInput(call *api.Call, in *firehose.DeliveryStreamEncryptionConfigurationInput) (keyType firehose.KeyType, keyARN string, err error) {
	if in == nil {
		return firehose.KeyTypeAwsOwnedCmk, "", nil
	}
	switch keyType = api.Val(in.KeyType); {
	case keyType == firehose.KeyTypeAwsOwnedCmk && in.KeyARN != nil:
		return "", "", invalidArgument("KeyARN cannot be specified when KeyType is AWS_OWNED_CMK.")
	case keyType == firehose.KeyTypeCustomerManagedCmk && in.KeyARN == nil:
		return "", "", invalidArgument("KeyARN must be specified when KeyType is CUSTOMER_MANAGED_CMK.")
	}
	keyARN = api.Val(in.KeyARN)
	if keyARN != "" {
		if region := strings.SplitN(keyARN, ":", 5)[3]; region != call.Region {
			return "", "", invalidArgument("The region of the KMS key %s does not match the region of the delivery stream, %s: region mismatch.", keyARN, call.Region)
		}
	}
	return keyType, keyARN, nil
}

// encryptable finds the delivery stream of a call that switches encryption, and
// counts the call.
func (s *Service) encryptable(call *api.Call, name *string) (*stream, streamRecord, error) {
	st, err := s.changeable(call, name)
	if err != nil {
		return nil, streamRecord{}, err
	}
	record := st.record
	if record.Type != firehose.DeliveryStreamTypeDirectPut {
		return nil, record, invalidArgument("Server-side encryption is only supported for delivery streams of type DirectPut; %s has type %s. Encrypt its source instead.", st.name, record.Type)
	}
	switch record.Encryption.Status {
	case firehose.DeliveryStreamEncryptionStatusEnabling, firehose.DeliveryStreamEncryptionStatusDisabling:
		return nil, record, resourceInUse("Encryption of Firehose %s under account %s is %s.", st.name, st.account, record.Encryption.Status)
	}
	now := s.now()
	var recent []int64
	for _, at := range record.EncryptionCalls {
		if now.Sub(time.UnixMilli(at)) < 24*time.Hour {
			recent = append(recent, at)
		}
	}
	if s.options.Daily && len(recent) >= maxEncryptionCalls {
		return nil, record, limitExceeded("StartDeliveryStreamEncryption and StopDeliveryStreamEncryption can be called at most %d times together per delivery stream in 24 hours.", maxEncryptionCalls)
	}
	recent = append(recent, now.UnixMilli())
	record.EncryptionCalls = recent[max(0, len(recent)-maxEncryptionCalls):]
	return st, record, nil
}
