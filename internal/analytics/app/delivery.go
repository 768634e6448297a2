package app

import (
	"encoding/json"
	"fmt"
)

// Row is a row on its way to a function.
type Row struct {
	// ID names the row in its calls, the same one in each of them.
	ID string
	// Retries is how often the row has been sent before.
	Retries int
	Data    []byte
}

type deliveryEvent struct {
	InvocationID   string           `json:"invocationId"`
	ApplicationARN string           `json:"applicationArn"`
	Records        []deliveryRecord `json:"records"`
}

type deliveryRecord struct {
	RecordID string           `json:"recordId"`
	Metadata deliveryMetadata `json:"lambdaDeliveryRecordMetadata"`
	Data     []byte           `json:"data"`
}

type deliveryMetadata struct {
	RetryHint int `json:"retryHint"`
}

// DeliveryEvent is what a function that takes rows is sent.
func DeliveryEvent(invocationID, applicationARN string, rows []Row) ([]byte, error) {
	event := deliveryEvent{InvocationID: invocationID, ApplicationARN: applicationARN, Records: make([]deliveryRecord, len(rows))}
	for i, r := range rows {
		event.Records[i] = deliveryRecord{r.ID, deliveryMetadata{r.Retries}, r.Data}
	}
	payload, err := json.Marshal(event)
	if err != nil {
		return nil, fmt.Errorf("write the event of a function: %w", err)
	}
	return payload, nil
}

// DeliverySize bounds how many bytes a row adds to the event of DeliveryEvent.
func DeliverySize(r Row) int {
	return len(r.ID) + (len(r.Data)+2)/3*4 + len(`{"recordId":"","lambdaDeliveryRecordMetadata":{"retryHint":},"data":""},`) + 20
}

// DeliveryAnswer reads what a function answered for rows: the places of those that
// it did not take, ascending. A row is taken if the answer names it with the
// result Ok and no other; what is said of rows that were not sent counts for
// nothing. An answer that is none at all is an error: no row is taken.
func DeliveryAnswer(rows []Row, answer []byte) (left []int, err error) {
	var response struct {
		Records *[]struct {
			RecordID string `json:"recordId"`
			Result   string `json:"result"`
		} `json:"records"`
	}
	if err := json.Unmarshal(answer, &response); err != nil {
		return nil, fmt.Errorf("the function's answer is not as expected: %w", err)
	}
	if response.Records == nil {
		return nil, fmt.Errorf("the function's answer has no records")
	}
	places := make(map[string]int, len(rows))
	for i, r := range rows {
		places[r.ID] = i
	}
	const (
		unanswered = iota
		taken
		failed
	)
	results := make([]uint8, len(rows))
	for _, r := range *response.Records {
		i, ok := places[r.RecordID]
		switch {
		case !ok:
		case r.Result != "Ok":
			results[i] = failed
		case results[i] == unanswered:
			results[i] = taken
		}
	}
	for i, r := range results {
		if r != taken {
			left = append(left, i)
		}
	}
	return left, nil
}
