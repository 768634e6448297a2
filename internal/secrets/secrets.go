// Package secrets finds the credentials that a SecretARN names, in files that
// the operator keeps.
//
// The one idea: a secret is a file, read whenever it is asked for, so that
// rotating it is replacing the file. A secret named NAME is DIR/NAME.json (or
// DIR/NAME), a JSON object of strings as the service's own secrets are:
// {"username":"…","password":"…"}, {"api_key":"…"}, {"hec_token":"…"},
// {"user":"…","private_key":"…","key_passphrase":"…"}. What lies in
// DIR/ACCOUNT/ belongs to that account alone and comes first; what lies
// elsewhere belongs to all. Links lead nowhere outside of DIR.
//
// Nothing is kept in memory and nothing of a secret is in an error.
package secrets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"
)

// ErrNotFound says that no file holds the secret.
var ErrNotFound = errors.New("no such secret")

// maxBytes is the largest secret; the service's own limit.
const maxBytes = 64 << 10

// Store resolves secrets from one directory.
type Store struct {
	root *os.Root // nil resolves nothing
}

// Open makes a store of a directory. An empty name makes one without secrets.
func Open(dir string) (*Store, error) {
	if dir == "" {
		return &Store{}, nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of secrets: %w", err)
	}
	return &Store{root: root}, nil
}

// Close lets go of the directory.
func (s *Store) Close() error {
	if s.root == nil {
		return nil
	}
	return s.root.Close()
}

// The character set of the service's names, in ARNs that end in a hyphen and six
// random characters, which callers may leave out.
var (
	arnPattern     = regexp.MustCompile(`^arn:[a-z-]+:secretsmanager:([a-z0-9-]+):([0-9]{12}):secret:([A-Za-z0-9/_+=.@-]{1,512})$`)
	suffixPattern  = regexp.MustCompile(`-[A-Za-z0-9]{6}$`)
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
)

// Name takes a secret's ARN apart. Name still bears the random suffix, if any.
func Name(arn string) (region, account, name string, err error) {
	m := arnPattern.FindStringSubmatch(arn)
	if m == nil {
		return "", "", "", fmt.Errorf("%q is not the ARN of a secret", arn)
	}
	return m[1], m[2], m[3], nil
}

// Resolve reads the secret that an ARN names. It fails with ErrNotFound, or says
// what is wrong with the file.
func (s *Store) Resolve(ctx context.Context, arn string) (map[string]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	_, account, name, err := Name(arn)
	if err != nil {
		return nil, err
	}
	if s.root == nil {
		return nil, fmt.Errorf("%w: %s: no directory of secrets is configured", ErrNotFound, arn)
	}
	names := []string{name}
	if bare := suffixPattern.ReplaceAllString(name, ""); bare != name && bare != "" {
		names = append(names, bare)
	}
	for _, dir := range []string{account, ""} {
		for _, name := range names {
			first, _, below := strings.Cut(name, "/")
			if dir == "" && below && accountPattern.MatchString(first) {
				continue // that folder belongs to an account, not to a name
			}
			for _, file := range []string{name + ".json", name} {
				values, err := s.read(path.Join(dir, file))
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errFolder) {
					continue
				}
				if err != nil {
					return nil, fmt.Errorf("secret %s: %w", arn, err)
				}
				return values, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, arn)
}

var errFolder = errors.New("is a folder")

func (s *Store) read(name string) (map[string]string, error) {
	f, err := s.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if info.IsDir() {
		return nil, errFolder
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	return decode(raw)
}

// decode reads a JSON object of strings. Its errors never quote what they read.
func decode(raw []byte) (map[string]string, error) {
	if len(raw) > maxBytes {
		return nil, fmt.Errorf("is larger than %d bytes", maxBytes)
	}
	var members map[string]json.RawMessage
	if !utf8.Valid(raw) || json.Unmarshal(raw, &members) != nil || members == nil {
		return nil, errors.New("is not a JSON object")
	}
	values := make(map[string]string, len(members))
	for name, member := range members {
		var value *string
		if json.Unmarshal(member, &value) != nil || value == nil {
			return nil, errors.New("has a member that is not a string")
		}
		values[name] = *value
	}
	return values, nil
}
