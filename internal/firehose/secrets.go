package firehose

import (
	"encoding/json"
	"fmt"
)

// encodeSecrets writes secrets in the form that is sealed.
func encodeSecrets(secrets map[string]string) []byte {
	raw, err := json.Marshal(secrets)
	if err != nil {
		panic(err) // a map of strings is JSON
	}
	return raw
}

func decodeSecrets(raw []byte) (secrets map[string]string, err error) {
	return secrets, json.Unmarshal(raw, &secrets)
}

// secretsError means secrets that cannot be read back.
type secretsError struct {
	stream string
	err    error
}

func (e *secretsError) Error() string {
	return fmt.Sprintf("open the secrets of delivery stream %s: %v", e.stream, e.err)
}

func (e *secretsError) Unwrap() error { return e.err }
