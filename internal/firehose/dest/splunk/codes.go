package splunk

import (
	"fmt"
	"net/http"

	"github.com/millrace/millrace/internal/firehose/dest"
)

// meanings are those of the collector's codes. What is wrong with the data
// itself will not be right the next time; all else may be repaired over there.
var meanings = map[int]struct {
	code, text string
	permanent  bool
}{
	1:  {"Splunk.DisabledToken", "the token is disabled", false},
	2:  {"Splunk.InvalidToken", "the token is required", false},
	3:  {"Splunk.InvalidToken", "the authorization is invalid", false},
	4:  {"Splunk.InvalidToken", "the token is invalid", false},
	5:  {"Splunk.InvalidDataFormat", "there is no data", true},
	6:  {"Splunk.InvalidDataFormat", "the data format is invalid", true},
	7:  {"Splunk.InvalidIndex", "the index is wrong", false},
	8:  {"Splunk.ServerError", "the collector has an internal error", false},
	9:  {"Splunk.IndexerBusy", "the collector is busy", false},
	10: {"Splunk.InvalidDataFormat", "the channel is missing", false},
	11: {"Splunk.InvalidDataFormat", "the channel is invalid", false},
	12: {"Splunk.InvalidDataFormat", "an event field is required", true},
	13: {"Splunk.InvalidDataFormat", "an event field is blank", true},
	14: {"Splunk.DisabledAck", "acknowledgements are disabled", false},
	15: {"Splunk.InvalidDataFormat", "there is an error in indexed fields", true},
	18: {"Splunk.IndexerBusy", "the queues are full", false},
	19: {"Splunk.IndexerBusy", "acknowledgements are not available", false},
	20: {"Splunk.IndexerBusy", "queues and acknowledgements are not available", false},
	23: {"Splunk.IndexerBusy", "the collector is shutting down", false},
}

// failure says what an answer means; nil is success.
func (a answer) failure() *dest.Error {
	e := &dest.Error{Code: "Splunk.ServerError"}
	known := false
	if a.valid && a.Code != nil {
		switch *a.Code {
		case 0, 17, 24: // success, healthy, and healthy with a queue that fills up
			if a.status == http.StatusOK {
				return nil
			}
		default:
			m, ok := meanings[*a.Code]
			if ok {
				known = true
				e.Code, e.Permanent = m.code, m.permanent
				e.Message = fmt.Sprintf("The collector answered with status %d and code %d: %s.", a.status, *a.Code, m.text)
				if a.Bad != nil {
					e.Message += " The first bad event has the number " + string(*a.Bad) + "."
				}
			}
		}
	}
	switch {
	case known:
	case a.status == http.StatusRequestEntityTooLarge:
		e.Code = "Splunk.ServerError.ContentTooLarge"
	case a.status == http.StatusNotFound:
		e.Code = "Splunk.URLNotFound"
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		e.Code = "Splunk.InvalidToken"
	case a.status == http.StatusServiceUnavailable || a.status == http.StatusTooManyRequests:
		e.Code = "Splunk.IndexerBusy"
	case a.status >= 300 && a.status < 400:
		e.Code = "Splunk.InvalidEndpoint"
		e.Message = fmt.Sprintf("The collector answered with status %d. Redirects are not followed.", a.status)
	case a.status == http.StatusOK && a.valid && a.Code == nil && a.Acks != nil:
		return nil
	case a.status == http.StatusOK && !a.valid:
		e.Code = "Splunk.InvalidHecResponseCharacter"
	}
	if e.Message == "" {
		e.Message = fmt.Sprintf("The collector answered with status %d: %s", a.status, a.quoted)
	}
	return e
}
