package client

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("# mine\n[default]\naws_access_key_id = D\naws_secret_access_key=ds\n\n[ work ]\naws_access_key_id=W\naws_secret_access_key = ws\naws_session_token=wt\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		given   Config
		profile string
		env     map[string]string
		want    Config
		fails   bool
	}{
		{
			name: "nothing set gives the local server",
			env:  map[string]string{"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"},
			want: Config{Endpoint: DefaultEndpoint, Region: DefaultRegion, AccessKey: defaultAccessKey, SecretKey: defaultSecretKey},
		},
		{
			name: "variables of the SDKs",
			env:  map[string]string{"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_KINESIS": "http://b", "AWS_REGION": "r", "AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_PROFILE": "work", "AWS_SHARED_CREDENTIALS_FILE": file},
			want: Config{Endpoint: "http://b", Region: "r", AccessKey: "A", SecretKey: "s", Token: "t"},
		},
		{
			name: "a named profile wins over keys in the environment", profile: "work",
			env:  map[string]string{"AWS_ACCESS_KEY_ID": "A", "AWS_SHARED_CREDENTIALS_FILE": file},
			want: Config{Endpoint: DefaultEndpoint, Region: DefaultRegion, AccessKey: "W", SecretKey: "ws", Token: "wt"},
		},
		{
			name: "flags win", given: Config{Endpoint: "http://flag", Region: "flag"},
			env:  map[string]string{"MILLRACE_ENDPOINT": "http://env", "AWS_REGION": "env", "AWS_SHARED_CREDENTIALS_FILE": file},
			want: Config{Endpoint: "http://flag", Region: "flag", AccessKey: "D", SecretKey: "ds"},
		},
		{
			name: "a certificate to trust, and a profile of the environment without a key",
			env:  map[string]string{"AWS_CA_BUNDLE": "ca.pem", "AWS_PROFILE": "none", "AWS_SHARED_CREDENTIALS_FILE": file},
			want: Config{Endpoint: DefaultEndpoint, Region: DefaultRegion, CA: "ca.pem", AccessKey: defaultAccessKey, SecretKey: defaultSecretKey},
		},
		{name: "a profile that is not there", profile: "none", env: map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}, fails: true},
	}
	for _, tt := range tests {
		got, err := FromEnvironment(tt.given, tt.profile, func(name string) string { return tt.env[name] })
		if (err != nil) != tt.fails {
			t.Errorf("%s: error %v", tt.name, err)
			continue
		}
		if !tt.fails && got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
