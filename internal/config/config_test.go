package config

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "rewrite generated documents and golden files")

// load runs Load with a settings file of the given text, variables and flags.
func load(t *testing.T, file string, env, args []string) (*Loaded, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "millrace.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		env = append(env, "MILLRACE_CONFIG="+path)
	}
	flags := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags, env)
}

func TestDefaultsAreValidAndComeFromNowhere(t *testing.T) {
	l, err := load(t, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !equal(&l.Config, Default()) {
		t.Errorf("loading nothing gives %+v", l.Config)
	}
	for _, o := range options {
		if l.Origin(o.key) != "default" {
			t.Errorf("%s comes from %s", o.key, l.Origin(o.key))
		}
		if o.key == "" || o.doc == "" {
			t.Errorf("field %d of Config has no key or no doc", o.index)
		}
	}
}

func TestLaterSourcesWin(t *testing.T) {
	const file = "region: file-1\naccount: \"111111111111\"\nmax-shards: 10\n"
	env := []string{"MILLRACE_REGION=env-1", "MILLRACE_MAX_SHARDS=20"}
	args := []string{"--max-shards", "30"}
	l, err := load(t, file, env, args)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, got, want, origin string }{
		{"account", l.Account, "111111111111", "millrace.yaml:2"},
		{"region", l.Region, "env-1", "environment MILLRACE_REGION"},
		{"max-shards", find("max-shards").render(&l.Config), "30", "flag --max-shards"},
		{"limits", l.Limits, "off", "default"},
	} {
		if c.got != c.want || !strings.HasSuffix(l.Origin(c.key), c.origin) {
			t.Errorf("%s is %q from %q; want %q from %q", c.key, c.got, l.Origin(c.key), c.want, c.origin)
		}
	}
}

func TestEverySettingTravelsThroughEverySource(t *testing.T) {
	values := map[string]string{
		"listen": "localhost:1", "extra-listen": "127.0.0.1:2,[::1]:3", "admin-listen": "off", "public-name": "a:1",
		"data": "/d", "account": "123456789012", "region": "r", "initialize-streams": "a:2,b:1:eu",
		"auth": "keys", "kms": "strict", "clock-window": "1m0s", "tls-name": "a,b", "limits": "aws", "state-delay": "500ms", "max-shards": "7",
		"max-body": "17MiB", "body-memory": "1GiB", "max-connections": "5", "max-streams": "6", "header-timeout": "1s", "idle-timeout": "2s",
		"shutdown-timeout": "3s", "wal-segment-bytes": "32MiB", "wal-segments": "4", "low-watermark": "1", "retention-sweep": "4s",
		"inflight-memory": "64MiB", "log-level": "debug", "log-format": "json", "access-log": "stdout", "audit-log": "stderr",
		"metrics-streams": "1", "metrics-shards": "2", "outbound": "public", "outbound-allow": "10.0.0.0/8,hec.example.com:8088",
		"max-delivery-streams": "8", "delivery-memory": "16MiB", "delivery-retention": "2h0m0s", "delivery-quota": "1GiB", "delivery-drain": "6s",
		"drain-on-delete": "true", "content-encoding": "false", "logs-principal": "arn:aws:iam::123456789012:user/logs,arn:aws:sts::*",
		"sql-extensions": "true", "max-applications": "9", "application-memory": "2GiB", "checkpoint-interval": "7s", "exactly-once": "true",
		"function-processes": "9", "s3-endpoint": "http://store:9000", "s3-region": "eu-north-1", "s3-path-style": "false",
		"tls": "false", "ephemeral": "true", "repair": "true", "allow-open-network": "true", "remote-profiling": "true", "allow-unsigned-payload": "true",
	}
	skip := map[string]bool{"seed": true, "tls-cert": true, "tls-key": true, "web-identity-issuers": true, "secrets": true, "destinations": true, "functions": true} // must name files
	for _, o := range options {
		if skip[o.key] {
			continue
		}
		v, ok := values[o.key]
		if !ok {
			t.Errorf("this test has no value for %s", o.key)
			continue
		}
		yaml := o.key + ": " + `"` + v + `"`
		if strings.Contains(v, ",") && o.key != "initialize-streams" {
			yaml = o.key + ": [" + strings.ReplaceAll(strings.ReplaceAll(v, "[::1]:3", `"[::1]:3"`), ",", ", ") + "]"
		}
		for source, l := range map[string]func() (*Loaded, error){
			"file":        func() (*Loaded, error) { return load(t, yaml, nil, nil) },
			"environment": func() (*Loaded, error) { return load(t, "", []string{o.variable() + "=" + v}, nil) },
			"flag":        func() (*Loaded, error) { return load(t, "", nil, []string{"--" + o.key + "=" + v}) },
		} {
			loaded, err := l()
			if err != nil {
				t.Errorf("%s by %s: %v", o.key, source, err)
				continue
			}
			if got := o.render(&loaded.Config); got != v {
				t.Errorf("%s by %s is %q, want %q", o.key, source, got, v)
			}
			if loaded.Origin(o.key) == "default" {
				t.Errorf("%s by %s claims to be a default", o.key, source)
			}
		}
	}
}

func TestBadFilesEarnTheirMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no bad files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yaml"), func(t *testing.T) {
			_, err := Load(nil, []string{"MILLRACE_CONFIG=" + file})
			if err == nil {
				t.Fatal("the file is accepted")
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			compare(t, golden, err.Error()+"\n")
			if strings.Contains(err.Error(), "\n") {
				t.Error("the message has more than one line")
			}
		})
	}
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestBadEnvironmentAndFlags(t *testing.T) {
	for _, c := range []struct {
		name      string
		env, args []string
		want      string
	}{
		{"unknown variable", []string{"MILLRACE_LISEN=x"}, nil, `environment MILLRACE_LISEN: no such setting; did you mean "MILLRACE_LISTEN"?`},
		{"wrong type", []string{"MILLRACE_MAX_SHARDS=many"}, nil, `environment MILLRACE_MAX_SHARDS: "many" is not a whole number`},
		{"open to the network", nil, []string{"--listen=0.0.0.0:4567"}, `flag --listen: listen: 0.0.0.0:4567 is not a loopback address and auth=open lets everyone in; set auth=keys, or allow-open-network if that is meant`},
		{"open to the network by default host", nil, []string{"--listen=:4567"}, `flag --listen: listen: :4567 is not a loopback address and auth=open lets everyone in; set auth=keys, or allow-open-network if that is meant`},
		{"half a certificate", nil, []string{"--tls-cert=x.pem"}, `flag --tls-cert: tls-cert: tls-cert and tls-key go together; only one is set`},
		{"streams", []string{"INITIALIZE_STREAMS=a:b"}, nil, `environment INITIALIZE_STREAMS: initialize-streams: "a:b": "b" is not a number of shards, 1 to 10000000`},
		{"more shards than numbers", []string{"INITIALIZE_STREAMS=a:4294967297"}, nil, `environment INITIALIZE_STREAMS: initialize-streams: "a:4294967297": "4294967297" is not a number of shards, 1 to 10000000`},
		{"outbound target", nil, []string{"--outbound=list", "--outbound-allow=10.0.0.0/33"}, `flag --outbound-allow: outbound-allow: "10.0.0.0/33" is not an allowed target; write an address, a prefix or a host name, with or without :port, such as 10.0.0.0/8 or hec.example.com:8088`},
		{"body cap", nil, []string{"--max-body=1MiB"}, `flag --max-body: max-body: 1MiB is out of range; allowed are 16MiB to 1GiB`},
		{"no file", []string{"MILLRACE_CONFIG=/nonexistent.yaml"}, nil, `config file /nonexistent.yaml: no such file or directory`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, "", c.env, c.args)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestOpenAccessNeedsLoopbackOrConsent(t *testing.T) {
	for _, args := range [][]string{
		{"--listen=0.0.0.0:1", "--allow-open-network"},
		{"--listen=0.0.0.0:1", "--auth=keys"},
		{"--listen=[::1]:1"}, {"--listen=localhost:1"}, {"--listen=127.8.9.1:1"},
	} {
		if _, err := load(t, "", nil, args); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// The documents are what the settings say, and the sample names all of them.
func TestDocumentsMatchTheSettings(t *testing.T) {
	compare(t, "../../docs/millrace.sample.yaml", Sample())
	compare(t, "../../docs/configuration.md", Reference())
	if m := missing(Sample()); m != nil {
		t.Errorf("the sample does not mention %v", m)
	}
	l, err := Load(nil, []string{"MILLRACE_CONFIG=../../docs/millrace.sample.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.ExtraListen, want.TLSNames, want.OutboundAllow, want.LogsPrincipals = []string{}, []string{}, []string{}, []string{}
	if !equal(&l.Config, want) {
		t.Errorf("the sample differs from the defaults: %+v", l.Config)
	}
}

func TestPrintShowsOriginsAndReadsBack(t *testing.T) {
	l, err := load(t, "region: file-1\n", []string{"MILLRACE_LIMITS=aws"}, []string{"--tls-name=a,b"})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := l.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"millrace.yaml:1", "# environment MILLRACE_LIMITS", "# flag --tls-name", "# default"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	again, err := load(t, b.String(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	again.ExtraListen, again.OutboundAllow, again.LogsPrincipals = nil, nil, nil
	if l.ExtraListen, l.OutboundAllow, l.LogsPrincipals = nil, nil, nil; !equal(&l.Config, &again.Config) {
		t.Errorf("printed settings read back as %+v", again.Config)
	}
}

func TestSeed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seed.yaml")
	write := func(s string) {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Default()
	write("streams:\n  - name: a\n  - {name: b, shards: 3, region: eu, retention-hours: 48, tags: {x: y}}\n  - {name: c, on-demand: true}\nusers:\n  - name: u\n")
	s, err := c.ReadSeed(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Streams) != 3 || s.Streams[0].Shards != 1 || s.Streams[0].Region != c.Region || s.Streams[1].RetentionHours != 48 || s.Streams[1].Tags["x"] != "y" || s.Streams[2].Shards != 0 {
		t.Errorf("streams are %+v", s.Streams)
	}
	for text, want := range map[string]string{
		"streams:\n  - nam: a\n":                              ":2: unknown field",
		"streams:\n  - name: 'a b'\n":                         `"a b" is not a stream name`,
		"streams:\n  - {name: a, retention-hours: 1}\n":       "outside 24 to 8760",
		"streams:\n  - {name: a, shards: 1, on-demand: true}": "takes no shards",
		"streams:\n  - {name: a, shards: -1}":                 "shards: -1 is outside 1 to 10000000",
		"streams:\n  - {name: a, shards: 4294967297}":         "shards: 4294967297 is outside 1 to 10000000",
	} {
		write(text)
		if _, err := c.ReadSeed(path); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v; want one line with %q", text, err, want)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add("listen: 127.0.0.1:1\n")
	f.Add("tls-name: [a, b]\n# c\n")
	f.Add("a: {b: c}\n- d\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = mapping("fuzz.yaml", []byte(text))
	})
}
