package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Record is one record of a source on its way through a function.
type Record struct {
	// ID names the record in the call: the sequence number of a data stream's, any
	// unique text of a delivery stream's.
	ID      string
	Data    []byte
	Arrival time.Time
	// ShardID, PartitionKey and SequenceNumber are those of data streams.
	ShardID, PartitionKey, SequenceNumber string
}

// Result is what a function made of a record.
type Result uint8

// The results.
const (
	Kept Result = iota // with new data
	Dropped
	Failed // goes to the error stream
)

// Processed is the answer for one record.
type Processed struct {
	Result Result
	Data   []byte
}

type processingEvent struct {
	InvocationID   string             `json:"invocationId"`
	ApplicationARN string             `json:"applicationArn"`
	StreamARN      string             `json:"streamArn"`
	Records        []processingRecord `json:"records"`
}

type processingRecord struct {
	RecordID string            `json:"recordId"`
	Data     []byte            `json:"data"`
	Kinesis  *kinesisMetadata  `json:"kinesisStreamRecordMetadata,omitempty"`
	Firehose *firehoseMetadata `json:"kinesisFirehoseRecordMetadata,omitempty"`
}

type kinesisMetadata struct {
	ShardID        string `json:"shardId"`
	PartitionKey   string `json:"partitionKey"`
	SequenceNumber string `json:"sequenceNumber"`
	Arrival        int64  `json:"approximateArrivalTimestamp"`
}

type firehoseMetadata struct {
	Arrival int64 `json:"approximateArrivalTimestamp"`
}

// ProcessingEvent is what a function is sent. Arrival times are whole seconds
// since 1970.
func ProcessingEvent(invocationID, applicationARN string, source Resource, records []Record) ([]byte, error) {
	event := processingEvent{InvocationID: invocationID, ApplicationARN: applicationARN, StreamARN: source.ARN, Records: make([]processingRecord, len(records))}
	for i, r := range records {
		event.Records[i] = processingRecord{RecordID: r.ID, Data: r.Data}
		if source.Kind == DeliveryStream {
			event.Records[i].Firehose = &firehoseMetadata{r.Arrival.Unix()}
		} else {
			event.Records[i].Kinesis = &kinesisMetadata{r.ShardID, r.PartitionKey, r.SequenceNumber, r.Arrival.Unix()}
		}
	}
	payload, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("write the event of a function: %w", err)
	}
	return payload, nil
}

// ProcessingAnswer reads what a function answered for records, in their order.
// Every record that was sent must be in it, once, and nothing else; a record that
// is kept must have data. Otherwise the whole call has failed.
func ProcessingAnswer(records []Record, answer []byte) ([]Processed, error) {
	var response struct {
		Records []struct {
			RecordID *string `json:"recordId"`
			Result   string  `json:"result"`
			Data     *[]byte `json:"data"`
		} `json:"records"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, fmt.Errorf("the function's answer is not as expected: %w", err)
	}
	if len(response.Records) != len(records) {
		return nil, fmt.Errorf("the function answered for %d records, not %d", len(response.Records), len(records))
	}
	places := make(map[string]int, len(records))
	for i, r := range records {
		places[r.ID] = i
	}
	processed := make([]Processed, len(records))
	for _, r := range response.Records {
		if r.RecordID == nil {
			return nil, errors.New("the function's answer has a record without recordId")
		}
		i, ok := places[*r.RecordID]
		if !ok {
			return nil, fmt.Errorf("the function answered for record %q, which was not sent or is there twice", *r.RecordID)
		}
		delete(places, *r.RecordID)
		if r.Data != nil {
			processed[i].Data = *r.Data
		}
		switch r.Result {
		case "Ok":
			if r.Data == nil {
				return nil, fmt.Errorf("the function's answer has no data for record %q", *r.RecordID)
			}
		case "Dropped":
			processed[i].Result = Dropped
		case "ProcessingFailed":
			processed[i].Result = Failed
		default:
			return nil, fmt.Errorf("the function answered %q for record %q", r.Result, *r.RecordID)
		}
	}
	return processed, nil
}
