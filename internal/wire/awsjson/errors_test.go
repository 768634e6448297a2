package awsjson

import (
	"testing"

	"github.com/millrace/millrace/internal/api"
	"github.com/millrace/millrace/internal/api/kinesis"
	"github.com/millrace/millrace/internal/api/kinesisanalytics"
)

func TestErrorsAreReadBack(t *testing.T) {
	for _, c := range []struct {
		body    string
		service *api.Service
		code    string
		text    string
		status  int
	}{
		{`{"__type":"ResourceNotFoundException","message":"gone"}`, kinesis.Service, "ResourceNotFoundException", "gone", 400},
		{`{"__type":"com.example#ResourceNotFoundException:http://x","message":"gone"}`, kinesis.Service, "ResourceNotFoundException", "gone", 400},
		{`{"__type":"SerializationException","Message":"Expected null"}`, kinesis.Service, "SerializationException", "Expected null", 418},
		{`{"__type":"UnknownOperationException"}`, nil, "UnknownOperationException", "", 418},
		{`{"__type":"InternalFailureException"}`, kinesis.Service, "InternalFailureException", "", 500},
		{`<html>`, kinesis.Service, "", "malformed body: not an object", 418},
	} {
		err := DecodeError(c.service, 418, []byte(c.body))
		if err.ErrorCode() != c.code || err.ErrorMessage() != c.text || err.HTTPStatus() != c.status {
			t.Errorf("%s: got %q, %q, %d", c.body, err.ErrorCode(), err.ErrorMessage(), err.HTTPStatus())
		}
	}
}

func TestModelledMembersOfErrorsTravel(t *testing.T) {
	body := AppendError(nil, &kinesisanalytics.UnableToDetectSchemaException{Message: "no", RawInputRecords: []string{"a", "b"}})
	if want := `{"__type":"UnableToDetectSchemaException","message":"no","RawInputRecords":["a","b"]}`; string(body) != want {
		t.Errorf("got %s", body)
	}
	err, ok := DecodeError(kinesisanalytics.Service, 400, body).(*kinesisanalytics.UnableToDetectSchemaException)
	if !ok || len(err.RawInputRecords) != 2 || err.Message != "no" {
		t.Errorf("got %+v", err)
	}
}
