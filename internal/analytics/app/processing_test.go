package app

import "testing"

// A call counts only if its answer has every record once.
func TestAnswersOfFunctions(t *testing.T) {
	records := []Record{{ID: "a"}, {ID: "b"}}
	for answer, ok := range map[string]bool{
		`{"records": [{"recordId": "b", "result": "Dropped"}, {"recordId": "a", "result": "Ok", "data": "eA=="}]}`:       true,
		`{"records": [{"recordId": "b", "result": "ProcessingFailed"}, {"recordId": "a", "result": "Ok", "data": ""}]}`:  true,
		`{"records": [{"recordId": "a", "result": "Dropped"}, {"recordId": "a", "result": "Dropped"}]}`:                  false,
		`{"records": [{"recordId": "a", "result": "Dropped"}, {"recordId": "c", "result": "Dropped"}]}`:                  false,
		`{"records": [{"recordId": "a", "result": "Dropped"}]}`:                                                          false,
		`{"records": [{"recordId": "a", "result": "Ok"}, {"recordId": "b", "result": "Dropped"}]}`:                       false,
		`{"records": [{"recordId": "a", "result": "ok", "data": "eA=="}, {"recordId": "b", "result": "Dropped"}]}`:       false,
		`{"records": [{"result": "Dropped"}, {"recordId": "b", "result": "Dropped"}]}`:                                   false,
		`{"records": [{"recordId": "a", "result": "Ok", "data": "no base64!"}, {"recordId": "b", "result": "Dropped"}]}`: false,
		`null`: false,
	} {
		if _, err := ProcessingAnswer(records, []byte(answer)); (err == nil) != ok {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func FuzzProcessingAnswer(f *testing.F) {
	f.Add([]byte(`{"records": [{"recordId": "a", "result": "Ok", "data": "eA=="}]}`))
	records := []Record{{ID: "a"}}
	f.Fuzz(func(t *testing.T, answer []byte) {
		if out, err := ProcessingAnswer(records, answer); err == nil && len(out) != len(records) {
			t.Errorf("%d answers", len(out))
		}
	})
}
