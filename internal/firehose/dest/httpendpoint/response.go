package httpendpoint

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/firehose/dest"
)

// Limits of an answer.
const (
	maxAnswer  = 1 << 20 // head and body together
	maxReason  = 64
	maxMessage = 8192
	quoted     = 1000 // bytes of an answer that a message repeats
)

// tooLargeError is an answer of 413.
type tooLargeError struct{ message string }

func (e *tooLargeError) Error() string { return e.message }

// judge reads an answer and says whether it means success: nil, a *dest.Error,
// a *tooLargeError, or what ended the caller's context.
func (a *attempt) judge(response *http.Response, id string) error {
	if _, reason, _ := strings.Cut(response.Status, " "); len(reason) > maxReason {
		return failed("HttpEndpoint.ResponseReasonPhraseExceededLimit", "The reason phrase of the answer is longer than %d characters.", maxReason)
	}
	size := int64(len(response.Status) + 12)
	for name, values := range response.Header {
		for _, v := range values {
			size += int64(len(name) + len(v) + 4)
		}
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1-min(size, maxAnswer)))
	if size+int64(len(body)) > maxAnswer || response.ContentLength > maxAnswer {
		return failed("HttpEndpoint.ResponseTooLarge", "The answer is larger than 1 MiB.")
	}
	if response.StatusCode == http.StatusRequestEntityTooLarge {
		return &tooLargeError{describe(response, body)}
	}
	if err != nil {
		return a.broken(err)
	}
	if len(response.Header.Values("Content-Type")) > 1 {
		return failed("HttpEndpoint.IllegalResponseFailure", "The answer has more than one Content-Type header.")
	}
	if response.StatusCode < 400 && response.StatusCode != http.StatusOK {
		return failed("HttpEndpoint.InvalidStatusCode", "The endpoint answered with status %d, which is neither success nor an error of the contract.%s", response.StatusCode, also(response))
	}
	invalid := func(why string) error {
		e := failed("HttpEndpoint.InvalidResponseFromDestination", "The endpoint's answer with status %d is invalid: %s. It was: %s", response.StatusCode, why, repeat(body))
		e.After = retryAfter(response.Header)
		return e
	}
	if response.StatusCode != http.StatusOK && len(body) == 0 {
		return answered(response, body, "")
	}
	if why := head(response, body); why != "" {
		return invalid(why)
	}
	message, why := decode(body, id, a.config.StringTimestamps)
	switch {
	case why != "":
		return invalid(why)
	case response.StatusCode != http.StatusOK:
		return answered(response, body, message)
	}
	return nil
}

func failed(code, format string, args ...any) *dest.Error {
	return &dest.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// answered is a failure that the endpoint told about by the contract.
func answered(response *http.Response, body []byte, message string) error {
	text := describe(response, body)
	if message != "" {
		text = fmt.Sprintf("The endpoint answered with status %d and the message: %s", response.StatusCode, cut(message, maxMessage))
	}
	return &dest.Error{Code: "HttpEndpoint.DestinationException", Message: text, After: retryAfter(response.Header)}
}

func describe(response *http.Response, body []byte) string {
	if len(body) == 0 {
		return fmt.Sprintf("The endpoint answered with status %d and no body.", response.StatusCode)
	}
	return fmt.Sprintf("The endpoint answered with status %d: %s", response.StatusCode, repeat(body))
}

func also(response *http.Response) string {
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		return " Redirects are not followed."
	}
	return ""
}

func repeat(body []byte) string {
	if len(body) == 0 {
		return "empty"
	}
	return strings.ToValidUTF8(cut(string(body), quoted), "�")
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// head checks what an answer with a body says about it; it returns what is
// wrong.
func head(response *http.Response, body []byte) string {
	switch {
	case len(body) == 0:
		return "it has no body"
	case response.ContentLength < 0:
		return "it has a body and no Content-Length"
	case len(response.Header.Values("Content-Encoding")) > 0:
		return "it has a Content-Encoding"
	}
	kind, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" {
		return "its Content-Type is not application/json"
	}
	return ""
}

// decode checks an answer's body against the request. Members that it does not
// know are ignored; names are those of the contract to the letter. why says what
// is wrong, message is the errorMessage, if there is one.
func decode(body []byte, id string, stringTimestamps bool) (message, why string) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return "", "it is not a JSON object"
	}
	text := func(name string) (string, bool) {
		var s *string
		if err := json.Unmarshal(members[name], &s); err != nil || s == nil {
			return "", false
		}
		return *s, true
	}
	if raw, ok := members["errorMessage"]; ok && string(raw) != "null" {
		var is bool
		if message, is = text("errorMessage"); !is {
			return "", "its errorMessage is not a string"
		}
		if utf8.RuneCountInString(message) > maxMessage {
			return "", "its errorMessage is longer than " + strconv.Itoa(maxMessage) + " characters"
		}
	}
	if got, ok := text("requestId"); !ok {
		return message, "it has no requestId"
	} else if got != id {
		return message, "its requestId is not that of the request"
	}
	at, ok := members["timestamp"]
	if !ok {
		return message, "it has no timestamp"
	}
	digits := string(at)
	if stringTimestamps && len(digits) > 2 && digits[0] == '"' {
		digits = digits[1 : len(digits)-1]
	}
	if _, err := strconv.ParseInt(digits, 10, 64); err != nil {
		return message, "its timestamp is not a number of milliseconds"
	}
	return message, ""
}
