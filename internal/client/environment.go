package client

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Where a command finds the server when nothing says otherwise. The key is
// accepted only by a server with --auth=open.
const (
	DefaultEndpoint  = "http://127.0.0.1:4567"
	DefaultRegion    = "us-east-1"
	defaultAccessKey = "millrace"
	defaultSecretKey = "millrace"
)

// FromEnvironment fills what config leaves empty from the variables that the
// AWS SDKs use, then from the shared credentials file, then from defaults. A
// profile that the environment names and the file has no key for, as with single
// sign-on, is no error: an open server takes any key. getenv is os.Getenv outside tests.
func FromEnvironment(config Config, profile string, getenv func(string) string) (Config, error) {
	first := func(names ...string) string {
		for _, name := range names {
			if v := getenv(name); v != "" {
				return v
			}
		}
		return ""
	}
	if config.Endpoint == "" {
		config.Endpoint = first("MILLRACE_ENDPOINT", "AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL")
	}
	if config.Endpoint == "" {
		config.Endpoint = DefaultEndpoint
	}
	if config.Region == "" {
		config.Region = first("AWS_REGION", "AWS_DEFAULT_REGION")
	}
	if config.Region == "" {
		config.Region = DefaultRegion
	}
	if config.CA == "" {
		config.CA = first("AWS_CA_BUNDLE")
	}
	if config.AccessKey != "" {
		return config, nil
	}
	named := profile != ""
	if !named {
		if key := getenv("AWS_ACCESS_KEY_ID"); key != "" {
			config.AccessKey, config.SecretKey, config.Token = key, getenv("AWS_SECRET_ACCESS_KEY"), getenv("AWS_SESSION_TOKEN")
			return config, nil
		}
		profile = getenv("AWS_PROFILE")
	}
	if profile == "" {
		profile = "default"
	}
	path := getenv("AWS_SHARED_CREDENTIALS_FILE")
	if path == "" {
		if home, err := os.UserHomeDir(); err == nil {
			path = filepath.Join(home, ".aws", "credentials")
		}
	}
	section, err := credentialsSection(path, profile)
	if err != nil {
		return config, err
	}
	switch {
	case section["aws_access_key_id"] != "":
		config.AccessKey, config.SecretKey, config.Token = section["aws_access_key_id"], section["aws_secret_access_key"], section["aws_session_token"]
	case named:
		return config, fmt.Errorf("profile %q has no aws_access_key_id in %s", profile, path)
	default:
		config.AccessKey, config.SecretKey = defaultAccessKey, defaultSecretKey
	}
	return config, nil
}

// credentialsSection reads one section of an INI-style credentials file. A
// missing file is an empty section.
func credentialsSection(path, profile string) (map[string]string, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || path == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	section := map[string]string{}
	inside := false
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			inside = strings.TrimSpace(strings.Trim(line, "[]")) == profile
			continue
		}
		if name, value, ok := strings.Cut(line, "="); ok && inside {
			section[strings.ToLower(strings.TrimSpace(name))] = strings.TrimSpace(value)
		}
	}
	return section, lines.Err()
}
