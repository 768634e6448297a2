// Package config is everything an operator can set: one struct, one
// constructor of defaults, and one order in which they are overridden.
//
//	defaults < file < environment (MILLRACE_…) < flags
//
// A setting has one name everywhere: --state-delay on the command line,
// MILLRACE_STATE_DELAY in the environment, state-delay in the file. The name,
// its help text and what is allowed stand beside the field in Config, from
// which flags, the sample file and the reference page are made; a new setting
// is a field and its line in Default. Names that do not exist are errors.
//
// Start reading at Config, then Load. Seed is the other file an operator may
// write: what should exist when a server starts.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/outbound"
)

// Bytes is a size. It is written as a number with an optional unit: 512,
// 64KiB, 20MiB, 1GiB.
type Bytes int64

// String renders the size in the largest unit that keeps it whole.
func (b Bytes) String() string {
	units := []struct {
		name string
		size Bytes
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}
	for _, u := range units {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Config is what is in force. The tags are part of the documentation: key is
// the setting's name, one the allowed words, doc its help.
type Config struct {
	Listen           string   `group:"Endpoints" key:"listen" doc:"Address of the API port. HTTP/1.1 and HTTP/2, in clear text and over TLS, share it. Port 0 takes a free one."`
	ExtraListen      []string `key:"extra-listen" doc:"Further addresses that serve the API, such as 0.0.0.0:443 for clients that cannot be told a port."`
	AdminListen      string   `key:"admin-listen" doc:"Address of the admin port: health, metrics and profiles, all without credentials. off closes it."`
	AllowOpenNetwork bool     `key:"allow-open-network" doc:"Let auth=open serve addresses other than loopback. Everyone who reaches the port may do everything."`
	RemoteProfiling  bool     `key:"remote-profiling" doc:"Serve pprof on the admin port to clients that are not on this machine."`
	PublicName       string   `key:"public-name" doc:"host:port under which clients reach the API port, printed at start. Empty means the listen address."`

	Data              string `group:"Data" key:"data" doc:"Directory that holds everything the server knows. One server at a time; made if it is missing."`
	Ephemeral         bool   `key:"ephemeral" doc:"Keep everything in memory and forget it at the end."`
	Repair            bool   `key:"repair" doc:"Open a damaged data directory: what is whole is served, what is damaged is isolated and reported. For one start, after millrace verify has shown what is lost."`
	Account           string `key:"account" doc:"Account of credentials that name no other, 12 digits."`
	Region            string `key:"region" doc:"Region of seeded streams, and the one printed at start. Requests name their own."`
	Seed              string `key:"seed" doc:"File with streams, users, keys and roles to create at start if they are missing."`
	InitializeStreams string `key:"initialize-streams" doc:"Streams to create at start if they are missing: name:shards[:region], separated by commas. The variable INITIALIZE_STREAMS is read too."`

	Auth                 string        `group:"Access" key:"auth" one:"open,keys" doc:"open takes any credentials; keys verifies signatures and applies policies."`
	ClockWindow          time.Duration `key:"clock-window" doc:"How far a request's date may be from the server's."`
	AllowUnsignedPayload bool          `key:"allow-unsigned-payload" doc:"Accept UNSIGNED-PAYLOAD in clear text too, not only over TLS."`
	WebIdentityIssuers   string        `key:"web-identity-issuers" doc:"File with the issuers whose tokens AssumeRoleWithWebIdentity trusts, and their public keys. Empty trusts none."`
	KMS                  string        `key:"kms" one:"open,strict" doc:"open lets any key id or alias encrypt a stream; strict knows alias/aws/kinesis and keys that exist."`

	TLS      bool     `group:"TLS" key:"tls" doc:"Serve TLS on the API port, beside clear text."`
	TLSCert  string   `key:"tls-cert" doc:"File with the certificate chain in PEM. Empty means one issued by the server's own authority (see millrace ca). Read again when it changes."`
	TLSKey   string   `key:"tls-key" doc:"File with the private key in PEM that belongs to tls-cert."`
	TLSNames []string `key:"tls-name" doc:"Further host names and addresses for the issued certificate, beside localhost, loopback and this machine's name."`

	Limits     string        `group:"Data Streams" key:"limits" one:"off,aws" doc:"aws enforces the service's quotas and rates; off counts them only."`
	StateDelay time.Duration `key:"state-delay" doc:"How long streams and consumers stay CREATING, UPDATING and DELETING, so that waiters can be exercised."`
	MaxShards  int           `key:"max-shards" doc:"Open shards allowed in one account and region, whatever limits says."`

	Outbound      string   `group:"Delivery" key:"outbound" one:"open,public,list" doc:"Where delivery streams and functions may connect to when a user names an address: open is everywhere but link-local and cloud metadata addresses, public leaves out loopback and private networks, list is only what outbound-allow names."`
	OutboundAllow []string `key:"outbound-allow" doc:"Further targets for outbound: addresses, prefixes or host names, with or without a port, such as 10.1.0.0/16 or hec.example.com:8088."`
	Secrets       string   `key:"secrets" doc:"Directory with the secrets that delivery streams name by ARN: NAME.json, or ACCOUNT/NAME.json for one account, each a JSON object of strings. Read at every use. Empty knows no secrets."`

	Destinations       string        `key:"destinations" doc:"File with destinations of delivery streams that the API has no words for, changes to those that it names, and where the brokers of MSK clusters are. Empty has none."`
	MaxDeliveryStreams int           `key:"max-delivery-streams" doc:"Delivery streams allowed in one account and region, whatever limits says."`
	DeliveryMemory     Bytes         `key:"delivery-memory" doc:"Memory that the buffers of all delivery streams may take together; beyond it the largest go to disk."`
	DeliveryRetention  time.Duration `key:"delivery-retention" doc:"How long records that were put to a delivery stream are kept for delivery."`
	DeliveryQuota      Bytes         `key:"delivery-quota" doc:"Undelivered data that one delivery stream may hold; beyond it puts are refused with a retryable error. 0 leaves it to low-watermark."`
	DeliveryDrain      time.Duration `key:"delivery-drain" doc:"Time given to buffered records at the end of the server. What is left is delivered after the next start."`
	DrainOnDelete      bool          `key:"drain-on-delete" doc:"Deliver what a delivery stream holds before it is deleted. The service throws it away."`
	ContentEncoding    bool          `key:"content-encoding" doc:"Send the header Content-Encoding with compressed objects, as the service does. Readers that honour it see gzip objects unpacked."`
	LogsPrincipals     []string      `key:"logs-principal" doc:"ARNs, or their beginnings before a star, of those who count as CloudWatch Logs: only they may put to delivery streams that decompress. None means everybody."`

	S3Endpoint  string `group:"Objects" key:"s3-endpoint" doc:"URL of the object store that delivery streams, channels and other writers of objects use, or aws for that of the credentials' cloud. Empty is the server's own, which also answers the S3 protocol on the API port."`
	S3Region    string `key:"s3-region" doc:"Region of that object store's requests. Empty is that of the AWS configuration, else us-east-1."`
	S3PathStyle bool   `key:"s3-path-style" doc:"Name buckets in the path of addresses, as stores without wildcard host names need it, not in the host."`

	Functions         string `group:"Functions" key:"functions" doc:"Directory with the functions that delivery streams and SQL applications use and the Lambda API calls: NAME/bootstrap, NAME/lambda_function.py or NAME/index.mjs run here, functions.yaml names those that run elsewhere. Empty means functions below data."`
	FunctionProcesses int    `key:"function-processes" doc:"Processes that local functions may have together."`

	SQLExtensions      bool          `group:"Analytics" key:"sql-extensions" doc:"Let all SQL applications use what is not part of the dialect: WITH, LIMIT, QUALIFY, session windows, JSON functions. Without it, those with the tag millrace:sql-extensions=on may."`
	MaxApplications    int           `key:"max-applications" doc:"SQL applications allowed in one account and region, whatever limits says."`
	ApplicationMemory  Bytes         `key:"application-memory" doc:"Memory that the state of one running SQL application may take: its windows, joins and tables. One that needs more is stopped behind its last checkpoint. 0 sets no bound."`
	CheckpointInterval time.Duration `key:"checkpoint-interval" doc:"How often a running SQL application stores its state and its place in the source. What came after is computed, and delivered, again after a crash."`
	ExactlyOnce        bool          `key:"exactly-once" doc:"Have SQL applications write each row to data streams once, also after a crash. Rows then wait for a journal of what their program has read, which is synced before them. Applications with a function that processes their records, and other destinations, get rows at least once."`

	MaxBody         Bytes         `group:"Requests" key:"max-body" doc:"Largest request body. The largest valid PutRecords needs 16MiB."`
	BodyMemory      Bytes         `key:"body-memory" doc:"Memory that request bodies may take together; more wait for their turn."`
	MaxConnections  int           `key:"max-connections" doc:"Open connections allowed on the API ports together."`
	MaxStreams      int           `key:"max-streams" doc:"Concurrent requests allowed on one HTTP/2 connection."`
	HeaderTimeout   time.Duration `key:"header-timeout" doc:"Time a client has to send its request headers, TLS handshake included."`
	IdleTimeout     time.Duration `key:"idle-timeout" doc:"Time after which a connection without requests is closed."`
	ShutdownTimeout time.Duration `key:"shutdown-timeout" doc:"Time given to requests in flight after SIGTERM."`

	WALSegmentBytes Bytes         `group:"Storage" key:"wal-segment-bytes" doc:"Size of one write-ahead segment."`
	WALSegments     int           `key:"wal-segments" doc:"Number of preallocated write-ahead segments; with their size, the data that a restart replays."`
	LowWatermark    Bytes         `key:"low-watermark" doc:"Free disk space below which writes are refused with a retryable error. Reads go on."`
	RetentionSweep  time.Duration `key:"retention-sweep" doc:"How often expired records are trimmed."`
	InflightMemory  Bytes         `key:"inflight-memory" doc:"Memory that records on their way to disk may take; more wait for their turn."`

	LogLevel       string `group:"Observing" key:"log-level" one:"debug,info,warn,error" doc:"Least severe messages that are logged."`
	LogFormat      string `key:"log-format" one:"text,json" doc:"Form of log lines on standard error."`
	AccessLog      string `key:"access-log" doc:"A line for every request: off, stdout, stderr or a file."`
	AuditLog       string `key:"audit-log" doc:"A JSON line for every call that changes or reads configuration: off, stdout, stderr or a file."`
	MetricsStreams int    `key:"metrics-streams" doc:"Streams that get metric series of their own; the rest are counted together as other."`
	MetricsShards  int    `key:"metrics-shards" doc:"Shards that get metric series of their own, over all streams."`
}

// Default returns the settings in force when nobody says anything.
func Default() *Config {
	return &Config{
		Listen:      "127.0.0.1:4567",
		AdminListen: "127.0.0.1:4568",

		Data:    "data",
		Account: "000000000000",
		Region:  "us-east-1",

		Auth:        "open",
		ClockWindow: 5 * time.Minute,
		KMS:         "open",

		TLS: true,

		Limits:    "off",
		MaxShards: 100_000,

		Outbound:           "open",
		MaxDeliveryStreams: 5000,
		DeliveryMemory:     96 << 20,
		DeliveryRetention:  24 * time.Hour,
		DeliveryDrain:      5 * time.Second,
		ContentEncoding:    true,

		S3PathStyle: true,

		FunctionProcesses: 64,

		MaxApplications:    50,
		ApplicationMemory:  1 << 30,
		CheckpointInterval: 10 * time.Second,

		MaxBody:         20 << 20,
		BodyMemory:      256 << 20,
		MaxConnections:  10_000,
		MaxStreams:      2_000,
		HeaderTimeout:   10 * time.Second,
		IdleTimeout:     3 * time.Minute,
		ShutdownTimeout: 20 * time.Second,

		WALSegmentBytes: 64 << 20,
		WALSegments:     8,
		LowWatermark:    256 << 20,
		RetentionSweep:  30 * time.Second,
		InflightMemory:  256 << 20,

		LogLevel:       "info",
		LogFormat:      "text",
		AccessLog:      "off",
		AuditLog:       "off",
		MetricsStreams: 500,
		MetricsShards:  2_000,
	}
}

var accountPattern = regexp.MustCompile(`^[0-9]{12}$`)

// problem is a failure of one setting; Load adds where its value came from.
type problem struct{ key, text string }

func (p *problem) Error() string { return p.key + ": " + p.text }

// check reports the first setting that cannot work. Enumerations and number
// formats have been dealt with when the values were read.
func (c *Config) check() error {
	bad := func(key, format string, args ...any) error {
		return &problem{key, fmt.Sprintf(format, args...)}
	}
	listens := append([]string{c.Listen}, c.ExtraListen...)
	for i, address := range listens {
		key := "listen"
		if i > 0 {
			key = "extra-listen"
		}
		if _, err := splitAddress(address); err != nil {
			return bad(key, "%v", err)
		}
		if c.Auth == "open" && !c.AllowOpenNetwork && !Loopback(address) {
			return bad(key, "%s is not a loopback address and auth=open lets everyone in; set auth=keys, or allow-open-network if that is meant", address)
		}
	}
	if c.AdminListen != "off" {
		if _, err := splitAddress(c.AdminListen); err != nil {
			return bad("admin-listen", "%v, or off", err)
		}
	}
	if !accountPattern.MatchString(c.Account) {
		return bad("account", "%q is not 12 digits", c.Account)
	}
	if c.Region == "" || strings.ContainsAny(c.Region, " :/") {
		return bad("region", "%q is not a region name", c.Region)
	}
	if c.Data == "" && !c.Ephemeral {
		return bad("data", "is empty; name a directory, or set ephemeral")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return bad("tls-cert", "tls-cert and tls-key go together; only one is set")
	}
	for _, f := range []struct{ key, path string }{{"tls-cert", c.TLSCert}, {"tls-key", c.TLSKey}, {"seed", c.Seed}, {"web-identity-issuers", c.WebIdentityIssuers}, {"secrets", c.Secrets}, {"destinations", c.Destinations}, {"functions", c.Functions}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			var pe *os.PathError
			if errors.As(err, &pe) {
				err = pe.Err
			}
			return bad(f.key, "%s: %v", f.path, err)
		}
	}
	if _, err := outbound.ParsePolicy(c.Outbound, c.OutboundAllow); err != nil {
		return bad("outbound-allow", "%v", err)
	}
	if c.S3Endpoint != "" && c.S3Endpoint != "aws" {
		if u, err := url.Parse(c.S3Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return bad("s3-endpoint", "%q is not a URL, such as https://store.example.com:9000, or aws", c.S3Endpoint)
		}
	}
	if _, err := ParseStreams(c.InitializeStreams, c.Region); err != nil {
		return bad("initialize-streams", "%v", err)
	}
	for _, b := range []struct {
		key          string
		got, min, to int64
	}{
		{"max-shards", int64(c.MaxShards), 1, 10_000_000},
		{"max-delivery-streams", int64(c.MaxDeliveryStreams), 1, 1_000_000},
		{"delivery-memory", int64(c.DeliveryMemory), 8 << 20, 1 << 40},
		{"delivery-quota", int64(c.DeliveryQuota), 0, 1 << 50},
		{"function-processes", int64(c.FunctionProcesses), 1, 10_000},
		{"max-applications", int64(c.MaxApplications), 1, 1_000_000},
		{"application-memory", int64(c.ApplicationMemory), 0, 1 << 50},
		{"max-body", int64(c.MaxBody), 16 << 20, 1 << 30},
		{"body-memory", int64(c.BodyMemory), int64(c.MaxBody), 1 << 40},
		{"max-connections", int64(c.MaxConnections), 1, 1 << 20},
		{"max-streams", int64(c.MaxStreams), 1, 1 << 20},
		{"wal-segment-bytes", int64(c.WALSegmentBytes), 1 << 20, 1 << 30},
		{"wal-segments", int64(c.WALSegments), 3, 1024},
		{"low-watermark", int64(c.LowWatermark), 0, 1 << 50},
		{"inflight-memory", int64(c.InflightMemory), 32 << 20, 1 << 40},
		{"metrics-streams", int64(c.MetricsStreams), 0, 1 << 20},
		{"metrics-shards", int64(c.MetricsShards), 0, 1 << 20},
	} {
		if b.got < b.min || b.got > b.to {
			render := func(n int64) string { return strconv.FormatInt(n, 10) }
			if b.min >= 1<<20 || b.to > 1<<30 {
				render = func(n int64) string { return Bytes(n).String() }
			}
			return bad(b.key, "%s is out of range; allowed are %s to %s", render(b.got), render(b.min), render(b.to))
		}
	}
	for _, d := range []struct {
		key          string
		got, min, to time.Duration
	}{
		{"clock-window", c.ClockWindow, time.Second, 24 * time.Hour},
		{"state-delay", c.StateDelay, 0, time.Hour},
		{"delivery-retention", c.DeliveryRetention, time.Minute, 365 * 24 * time.Hour},
		{"delivery-drain", c.DeliveryDrain, 0, time.Hour},
		{"checkpoint-interval", c.CheckpointInterval, 100 * time.Millisecond, time.Hour},
		{"header-timeout", c.HeaderTimeout, 100 * time.Millisecond, time.Hour},
		{"idle-timeout", c.IdleTimeout, time.Second, 24 * time.Hour},
		{"shutdown-timeout", c.ShutdownTimeout, 0, time.Hour},
		{"retention-sweep", c.RetentionSweep, 100 * time.Millisecond, time.Hour},
	} {
		if d.got < d.min || d.got > d.to {
			return bad(d.key, "%v is out of range; allowed are %v to %v", d.got, d.min, d.to)
		}
	}
	return nil
}

func splitAddress(address string) (port int, err error) {
	_, p, err := net.SplitHostPort(address)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err != nil || port < 0 || port > 65535 {
		return 0, fmt.Errorf("%q is not an address; write host:port, such as 127.0.0.1:4567", address)
	}
	return port, nil
}

// Loopback tells whether only this machine can reach an address.
func Loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// DataPath is the data directory as an absolute path.
func (c *Config) DataPath() string {
	path, err := filepath.Abs(c.Data)
	if err != nil {
		return c.Data
	}
	return path
}
