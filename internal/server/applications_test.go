package server

import (
	"strings"
	"testing"
)

// What a function says of its failure is the same each time, or it would be told
// each time.
func TestFailuresOfFunctionsReadAlike(t *testing.T) {
	for payload, want := range map[string]string{
		`{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: 0b79444c-d53b-4e9d-9876-421841fbc778 Error: Task timed out after 3.00 seconds"}`: "Sandbox.Timedout: Task timed out after 3.00 seconds",
		`{"errorType":"ValueError","errorMessage":"RequestId: 7"}`:                                                                                   "ValueError: RequestId: 7",
		`{"errorMessage":"boom"}`: "boom",
		`boom`:                    "boom",
		strings.Repeat("x", 1000): strings.Repeat("x", maxFailure) + "…",
	} {
		if got := functionFailure([]byte(payload)); got != want {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
}
