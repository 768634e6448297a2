package snowflake

import (
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"
)

// signToken makes the token that an account takes for a login: signed with the
// user's key, naming the key by its fingerprint, good for an hour.
func signToken(key *rsa.PrivateKey, account, user string, now time.Time) (string, error) {
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", err
	}
	fingerprint := sha256.Sum256(public)
	subject := account + "." + strings.ToUpper(user)
	claims, err := json.Marshal(struct {
		Issuer  string `json:"iss"`
		Subject string `json:"sub"`
		Issued  int64  `json:"iat"`
		Expires int64  `json:"exp"`
	}{subject + ".SHA256:" + base64.StdEncoding.EncodeToString(fingerprint[:]), subject, now.Unix(), now.Add(59 * time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// parseKey reads a private key: PKCS#8 in base64, with or without PEM's lines,
// encrypted where there is a passphrase. Its errors tell nothing of the key.
func parseKey(text, passphrase string) (*rsa.PrivateKey, error) {
	if len(text) > 32<<10 {
		return nil, errors.New("it is too long")
	}
	var body strings.Builder
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			body.WriteString(strings.Join(strings.Fields(line), ""))
		}
	}
	der, err := base64.StdEncoding.DecodeString(body.String())
	if err != nil || len(der) == 0 {
		return nil, errors.New("it is not base64")
	}
	if passphrase != "" {
		plain, err := decryptKey(der, passphrase)
		if err != nil {
			return nil, err
		}
		der = plain
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("it is not PKCS#8, or is encrypted with another passphrase")
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an RSA key")
	}
	return key, nil
}

// What an encrypted key says about its encryption: RFC 8018, PBES2 with PBKDF2.
type (
	algorithm struct {
		ID         asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	encryptedKey struct {
		Algorithm algorithm
		Data      []byte
	}
	pbes2Parameters struct {
		Derivation, Encryption algorithm
	}
	pbkdf2Parameters struct {
		Salt       []byte
		Iterations int
		KeyLength  int       `asn1:"optional"`
		Random     algorithm `asn1:"optional"`
	}
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	hashes = map[string]func() hash.Hash{
		"":                    sha1.New, // the default of the format
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}
	ciphers = map[string]struct {
		key   int
		block func([]byte) (cipher.Block, error)
	}{
		"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
		"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
		"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
		"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
	}
)

// maxIterations bounds the work that a key may ask for; common are 2048 to 600,000.
const maxIterations = 5_000_000

func decryptKey(der []byte, passphrase string) ([]byte, error) {
	var (
		outer  encryptedKey
		scheme pbes2Parameters
		kdf    pbkdf2Parameters
		iv     []byte
	)
	unmarshal := func(raw []byte, into any) bool {
		rest, err := asn1.Unmarshal(raw, into)
		return err == nil && len(rest) == 0
	}
	if !unmarshal(der, &outer) || !outer.Algorithm.ID.Equal(oidPBES2) {
		return nil, errors.New("it is not encrypted as PKCS#8 with PBES2, and there is a passphrase")
	}
	if !unmarshal(outer.Algorithm.Parameters.FullBytes, &scheme) || !scheme.Derivation.ID.Equal(oidPBKDF2) ||
		!unmarshal(scheme.Derivation.Parameters.FullBytes, &kdf) {
		return nil, errors.New("its passphrase is not stretched with PBKDF2")
	}
	h, ok := hashes[kdf.Random.ID.String()]
	c, ok2 := ciphers[scheme.Encryption.ID.String()]
	if !ok || !ok2 {
		return nil, fmt.Errorf("it is encrypted with %v and %v, which are not supported", kdf.Random.ID, scheme.Encryption.ID)
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations {
		return nil, fmt.Errorf("it asks for %d iterations", kdf.Iterations)
	}
	secret, err := pbkdf2.Key(h, passphrase, kdf.Salt, kdf.Iterations, c.key)
	if err != nil {
		return nil, err
	}
	block, err := c.block(secret)
	if err != nil {
		return nil, err
	}
	n := block.BlockSize()
	if !unmarshal(scheme.Encryption.Parameters.FullBytes, &iv) || len(iv) != n || len(outer.Data) == 0 || len(outer.Data)%n != 0 {
		return nil, errors.New("it is damaged")
	}
	plain := make([]byte, len(outer.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, outer.Data)
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > n {
		return nil, errors.New("the passphrase is not that of the key")
	}
	for _, b := range plain[len(plain)-pad:] {
		if int(b) != pad {
			return nil, errors.New("the passphrase is not that of the key")
		}
	}
	return plain[:len(plain)-pad], nil
}
