// Package broker runs a real Kafka broker for tests.
//
// The one idea: one broker a test binary, its own controller, with everything in
// a temporary folder; tests use topics of their own. scripts/install puts it
// together from published Java archives. It needs about 400 MB of memory and
// some seconds to start.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Broker is a running broker.
type Broker struct {
	Addr string // host and port
	dir  string
	cmd  *exec.Cmd
	log  *os.File
}

// ErrMissing says that the broker is not installed.
var ErrMissing = errors.New("Kafka is not installed: scripts/install kafka")

// Main is what a TestMain calls: it runs the tests with a broker, which is nil
// if it is not installed, unless the environment says PEERS=required.
func Main(m *testing.M, use func(b *Broker)) (code int) {
	b, err := start()
	switch {
	case err == nil:
		use(b)
		defer func() {
			if err := b.stop(); err != nil {
				fmt.Fprintln(os.Stderr, "stop Kafka:", err)
				code = 1
			}
		}()
	case !errors.Is(err, ErrMissing) || os.Getenv("PEERS") == "required":
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func start() (_ *Broker, err error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return nil, errors.New("no go.mod above the working directory")
		}
		root = filepath.Dir(root)
	}
	classpath, err := os.ReadFile(filepath.Join(root, ".cache", "kafka", "classpath"))
	if err != nil {
		return nil, ErrMissing
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.Join(ErrMissing, err)
	}
	b := &Broker{}
	if b.dir, err = os.MkdirTemp("", "millrace-kafka-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(b.dir))
		}
	}()
	var ports [2]int
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			return nil, err
		}
	}
	b.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[0]))
	properties := filepath.Join(b.dir, "server.properties")
	text := strings.NewReplacer("ADDR", b.Addr, "CONTROL", net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[1])), "DATA", filepath.Join(b.dir, "data")).Replace(`
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@CONTROL
listeners=PLAINTEXT://ADDR,CONTROLLER://CONTROL
advertised.listeners=PLAINTEXT://ADDR
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=DATA
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.enable=false
log.retention.ms=-1
num.network.threads=1
num.io.threads=2
`)
	if err = os.WriteFile(properties, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if b.log, err = os.Create(filepath.Join(b.dir, "log")); err != nil {
		return nil, err
	}
	run := func(class string, args ...string) *exec.Cmd {
		c := exec.Command(java, append([]string{"-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", strings.TrimSpace(string(classpath)), class}, args...)...)
		c.Stdout, c.Stderr = b.log, b.log
		c.SysProcAttr = dieWithParent()
		return c
	}
	output := func() []byte { out, _ := os.ReadFile(filepath.Join(b.dir, "log")); return out }
	if err = run("kafka.tools.StorageTool", "format", "-t", "bWlsbHJhY2UtdGVzdHMtMQ", "-c", properties).Run(); err != nil {
		return nil, fmt.Errorf("format Kafka's folder: %w: %s", err, output())
	}
	b.cmd = run("kafka.Kafka", properties)
	if err = b.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		ready := b.ready()
		if ready == nil {
			return b, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("Kafka does not answer: %w: %s", ready, output()), b.stop())
		}
	}
}

func freePort() (int, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (b *Broker) ready() error {
	client, err := kgo.NewClient(kgo.SeedBrokers(b.Addr))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	brokers, err := kadm.NewClient(client).ListBrokers(ctx)
	if err == nil && len(brokers) != 1 {
		err = fmt.Errorf("%d brokers", len(brokers))
	}
	return err
}

func (b *Broker) stop() error {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { _ = b.cmd.Process.Kill() })
	defer kill.Stop()
	err := b.cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 143 { // ended by the signal
		err = nil
	}
	return errors.Join(err, b.log.Close(), os.RemoveAll(b.dir))
}

// Topic makes a topic with a name of its own.
func Topic(t *testing.T, addr string, partitions int32) string {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), partitions, 1, nil, name); err != nil {
		t.Fatal(err)
	}
	return name
}

// Records reads a topic as it is now: partition by partition, each in its order.
func Records(t *testing.T, addr, topic string) []*kgo.Record {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), topic)
	client.Close()
	if err != nil {
		t.Fatal(err)
	}
	var all []*kgo.Record
	for p := range int32(len(ends[topic])) {
		end, ok := ends.Lookup(topic, p)
		if !ok || end.Err != nil {
			t.Fatalf("partition %d: %v", p, end.Err)
		}
		if end.Offset == 0 {
			continue
		}
		reader, err := kgo.NewClient(kgo.SeedBrokers(addr),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().AtStart()}}))
		if err != nil {
			t.Fatal(err)
		}
		for next := int64(0); next < end.Offset; {
			fetches := reader.PollFetches(t.Context())
			if err := fetches.Err(); err != nil {
				reader.Close()
				t.Fatal(err)
			}
			fetches.EachRecord(func(r *kgo.Record) {
				if r.Offset < end.Offset {
					all = append(all, r)
				}
				next = r.Offset + 1
			})
		}
		reader.Close()
	}
	return all
}
