package objects

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"strconv"
	"strings"
)

// The checksum algorithms of the protocol, as they are named there.
var algorithms = map[string]func() hash.Hash{
	"CRC32":     func() hash.Hash { return crc32.NewIEEE() },
	"CRC32C":    func() hash.Hash { return crc32.New(castagnoli) },
	"CRC64NVME": func() hash.Hash { return crc64.New(nvme) },
	"SHA1":      sha1.New,
	"SHA256":    sha256.New,
}

// nvmePolynomial is that of the NVM Express specification, reflected.
const nvmePolynomial = 0x9a6c9329ac4bc9b5

var nvme = crc64.MakeTable(nvmePolynomial)

const checksumPrefix = "x-amz-checksum-"

// checksumHeader is the header of an algorithm.
func checksumHeader(algorithm string) string { return checksumPrefix + strings.ToLower(algorithm) }

// algorithmOf is the algorithm of a header or trailer, empty if it is none.
func algorithmOf(header string) string {
	name, ok := strings.CutPrefix(strings.ToLower(header), checksumPrefix)
	if !ok {
		return ""
	}
	name = strings.ToUpper(name)
	if algorithms[name] == nil {
		return ""
	}
	return name
}

func checksumText(h hash.Hash) string { return base64.StdEncoding.EncodeToString(h.Sum(nil)) }

// combineChecksums gives an object the checksum that follows from its parts': of
// the whole object for the cyclic ones when that was asked for, otherwise the
// checksum of the checksums.
func combineChecksums(r *objectRecord, u *uploadRecord, parts []*numberedPart) {
	if u.Algorithm == "" {
		return
	}
	sums := make([][]byte, len(parts))
	for i, p := range parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksum)
		if err != nil || p.Checksum == "" || p.Algorithm != u.Algorithm {
			return // a part came without one: there is nothing to tell
		}
		sums[i] = raw
		r.PartSums = append(r.PartSums, p.Checksum)
	}
	r.Algorithm, r.Composite = u.Algorithm, u.Composite
	if u.Composite {
		h := algorithms[u.Algorithm]()
		for _, sum := range sums {
			h.Write(sum)
		}
		r.Checksum = checksumText(h) + "-" + strconv.Itoa(len(parts))
		return
	}
	switch u.Algorithm {
	case "CRC64NVME":
		total := uint64(0)
		for i, sum := range sums {
			total = combine(nvmePolynomial, 64, total, binary.BigEndian.Uint64(sum), parts[i].Size)
		}
		r.Checksum = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, total))
	case "CRC32", "CRC32C":
		polynomial := uint64(crc32.IEEE)
		if u.Algorithm == "CRC32C" {
			polynomial = crc32.Castagnoli
		}
		total := uint64(0)
		for i, sum := range sums {
			total = combine(polynomial, 32, total, uint64(binary.BigEndian.Uint32(sum)), parts[i].Size)
		}
		r.Checksum = base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(total)))
	default:
		r.Algorithm = "" // refused when the upload began
	}
}

// combine returns the cyclic checksum of two texts one after the other from
// theirs and the length of the second in bytes. Appending a zero bit to a text
// is a linear map on its checksum; squaring the map doubles the number of bits.
func combine(polynomial uint64, width int, first, second uint64, length int64) uint64 {
	if length == 0 {
		return first
	}
	var m [64]uint64 // column i is what becomes of bit i
	m[0] = polynomial
	for i := 1; i < width; i++ {
		m[i] = 1 << (i - 1)
	}
	apply := func(v uint64) (out uint64) {
		for i := 0; v != 0; i, v = i+1, v>>1 {
			if v&1 != 0 {
				out ^= m[i]
			}
		}
		return out
	}
	square := func() {
		var next [64]uint64
		for i := range width {
			next[i] = apply(m[i])
		}
		m = next
	}
	for range 3 { // from a bit to a byte
		square()
	}
	for ; length > 0; length >>= 1 {
		if length&1 != 0 {
			first = apply(first)
		}
		square()
	}
	return first ^ second
}
