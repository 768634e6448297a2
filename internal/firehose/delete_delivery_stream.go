package firehose

import (
	"context"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/firehose"
)

// DeleteDeliveryStream deletes a delivery stream that is ACTIVE, or whose
// creation or deletion has failed. What it has not delivered is lost, unless the
// operator has chosen otherwise. ResourceInUse while it is CREATING; one that is
// DELETING already goes on, successfully. A deletion that failed because of the
// key needs AllowForceDelete.
func (s *Service) DeleteDeliveryStream(ctx context.Context, call *api.Call, in *firehose.DeleteDeliveryStreamInput) (*firehose.DeleteDeliveryStreamOutput, error) {
	for {
		st, err := s.resolve(call, in.DeliveryStreamName)
		if err != nil {
			return nil, err
		}
		record := st.record
		switch record.Status {
		case firehose.DeliveryStreamStatusCreating:
			return nil, notActive(st)
		case firehose.DeliveryStreamStatusDeleting:
			return &firehose.DeleteDeliveryStreamOutput{}, nil
		case firehose.DeliveryStreamStatusDeletingFailed:
			if !api.Val(in.AllowForceDelete) {
				return nil, resourceInUse("Firehose %s under account %s is in state DELETING_FAILED; set AllowForceDelete to delete it anyway.", st.name, st.account)
			}
		}
		record.Status, record.Failure = firehose.DeliveryStreamStatusDeleting, nil
		record.Forced = api.Val(in.AllowForceDelete)
		record.Pending = &transition{Kind: deleting, Due: s.due()}
		conflict, err := s.commit(ctx, st.update(record))
		if err != nil {
			return nil, err
		}
		if !conflict {
			return &firehose.DeleteDeliveryStreamOutput{}, nil
		}
	}
}
