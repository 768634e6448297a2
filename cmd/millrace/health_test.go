package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthExitsByReadiness(t *testing.T) {
	reply := func(status int, text string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/health/ready" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(text + "\n"))
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for _, c := range []struct {
		admin, stdout, stderr string
		code                  int
	}{
		{reply(200, "ready"), "ready\n", "", 0},
		{reply(503, "starting"), "", "not ready: starting\n", 1},
		{reply(503, "metadata: stopped: x"), "", "not ready: metadata: stopped: x\n", 1},
		{"off", "", "admin port is off", 1},
		{"127.0.0.1:1", "", "refused", 1},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"health", "--admin-listen", c.admin}, &out, &errs)
		if code != c.code || out.String() != c.stdout || !strings.Contains(errs.String(), c.stderr) || strings.Count(errs.String(), "\n") > 1 {
			t.Errorf("%s: exit code %d, %q, %q", c.admin, code, out.String(), errs.String())
		}
	}
}
