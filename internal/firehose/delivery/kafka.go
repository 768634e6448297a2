package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Topics says where Kafka topics are.
type Topics struct {
	// Brokers maps cluster ARNs to bootstrap servers.
	Brokers map[string][]string
	// Options, if set, gives more options for a cluster's clients: how to dial and
	// to authenticate.
	Options func(clusterARN string) ([]kgo.Opt, error)
}

const (
	// maxTopicRecord is the largest record that is taken from a topic.
	maxTopicRecord = 10 << 20
	// topicMemory bounds what is fetched ahead for all partitions of a topic, but
	// for a fetch of each broker.
	topicMemory = 16 << 20
	// topicRefresh is how often new partitions are looked for, and topicCommit how
	// often the group is told how far delivery is.
	topicRefresh = time.Minute
	topicCommit  = 5 * time.Second
)

// consumer reads one topic. The accounts say where to begin; the group's offsets
// are written for people and tools, and not read.
type consumer struct {
	stream *stream
	config TopicConfig
	client *kgo.Client
	admin  *kadm.Client

	mu      sync.Mutex
	members map[int32]*member
}

// member is one partition: what was fetched of it and not read yet. Index is the
// offset plus one.
type member struct {
	consumer  *consumer
	partition int32

	mu      sync.Mutex
	queue   []RunRecord
	control []bool // parallel to queue: a marker of a transaction, to be passed over
	bytes   int64
	next    uint64        // index behind the last one that was fetched
	high    uint64        // index behind the last one that the broker has
	changed chan struct{} // closed when the queue grows
	paused  bool
	settled uint64 // low of the stored account
	told    uint64 // to the group
}

// consume reads the topic until ctx ends.
func (s *stream) consume(ctx context.Context) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, 30*time.Second) {
		err := s.consumeOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		s.setListed()
		s.problem("MSK.ServiceException", "the source topic cannot be read: "+err.Error(), "", false)
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (s *stream) consumeOnce(ctx context.Context) error {
	s.mu.Lock()
	config := *s.version.Source.Topic
	name := s.version.Name
	s.mu.Unlock()
	topics := s.engine.o.Topics
	brokers := topics.Brokers[config.ClusterARN]
	if len(brokers) == 0 {
		return fmt.Errorf("no bootstrap servers are configured for cluster %s", config.ClusterARN)
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(brokers...), kgo.ClientID("millrace"), kgo.FetchMaxBytes(8 << 20), kgo.FetchMaxPartitionBytes(1 << 20),
		kgo.BrokerMaxReadBytes(64 << 20), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.RetryTimeout(10 * time.Second),
	}
	if topics.Options != nil {
		more, err := topics.Options(config.ClusterARN)
		if err != nil {
			return err
		}
		options = append(options, more...)
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	c := &consumer{stream: s, config: config, client: client, admin: kadm.NewClient(client), members: map[int32]*member{}}
	ctx, cancel := context.WithCancel(ctx)
	var lanes sync.WaitGroup
	defer s.forgetLanes(c)
	defer lanes.Wait()
	defer cancel()
	if err := c.refresh(ctx, &lanes); err != nil {
		return err
	}
	s.setListed()
	var group sync.WaitGroup
	group.Go(func() { c.poll(ctx) })
	defer group.Wait()
	defer cancel()
	refresh, commit := time.NewTicker(topicRefresh), time.NewTicker(topicCommit)
	defer refresh.Stop()
	defer commit.Stop()
	for {
		select {
		case <-refresh.C:
			if err := c.refresh(ctx, &lanes); err != nil && ctx.Err() == nil {
				s.problem("MSK.ServiceException", "partitions cannot be listed: "+err.Error(), "", false)
			}
		case <-commit.C:
			c.tell(ctx, name)
		case <-ctx.Done():
			// What was delivered at the end is told as well, if it is quick.
			last, end := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer end()
			c.tell(last, name)
			return ctx.Err()
		}
	}
}

// forgetLanes makes place for lanes of another client.
func (s *stream) forgetLanes(c *consumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return // what they have is still being delivered
	}
	for name, l := range s.lanes {
		if l.kafka != nil && l.kafka.consumer == c {
			delete(s.lanes, name)
		}
	}
}

// refresh starts lanes for partitions that have none.
func (c *consumer) refresh(ctx context.Context, lanes *sync.WaitGroup) error {
	s := c.stream
	starts, err := c.admin.ListStartOffsets(ctx, c.config.Topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return err
	}
	froms := starts
	if !c.config.From.IsZero() && c.config.From.UnixMilli() > 0 {
		if froms, err = c.admin.ListOffsetsAfterMilli(ctx, c.config.From.UnixMilli(), c.config.Topic); err == nil {
			err = froms.Error()
		}
		if err != nil {
			return err
		}
	}
	if len(starts[c.config.Topic]) == 0 {
		return fmt.Errorf("topic %s has no partitions", c.config.Topic)
	}
	rows, err := s.storedLanes()
	if err != nil {
		return err
	}
	add := map[int32]kgo.Offset{}
	for partition, start := range starts[c.config.Topic] {
		c.mu.Lock()
		known := c.members[partition] != nil
		c.mu.Unlock()
		if known {
			continue
		}
		name := strconv.Itoa(int(partition))
		row, ok := rows[name]
		if !ok {
			from, found := froms.Lookup(c.config.Topic, partition)
			if !found {
				continue
			}
			row.Low = uint64(max(from.Offset, start.Offset)) + 1
		}
		m := &member{consumer: c, partition: partition, next: row.Low, high: row.Low, changed: make(chan struct{}), settled: row.Low, told: row.Low}
		l, err := s.addLane(ctx, name, m, nil, m, row, lanes)
		if err != nil {
			return err
		}
		if first := uint64(start.Offset) + 1; first > row.Low {
			s.lost(l, first-row.Low)
		}
		c.mu.Lock()
		c.members[partition] = m
		c.mu.Unlock()
		add[partition] = kgo.NewOffset().At(max(int64(row.Low)-1, start.Offset))
	}
	if len(add) > 0 {
		c.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{c.config.Topic: add})
	}
	return nil
}

// poll hands out what is fetched.
func (c *consumer) poll(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := c.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		fetches.EachError(func(_ string, partition int32, err error) {
			var known *kerr.Error
			if errors.As(err, &known) && known.Retriable || errors.Is(err, context.Canceled) {
				return
			}
			c.stream.problem("MSK.ServiceException", fmt.Sprintf("partition %d cannot be read: %v", partition, err), "", false)
		})
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			c.mu.Lock()
			m, n := c.members[p.Partition], len(c.members)
			c.mu.Unlock()
			if m != nil {
				m.push(p.Records, p.HighWatermark, topicMemory/int64(max(n, 1)))
			}
		})
	}
}

// push adds records, and has no more fetched while there is more than limit.
func (m *member) push(records []*kgo.Record, high, limit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		index := uint64(r.Offset) + 1
		if index < m.next {
			continue
		}
		rec := RunRecord{Index: index, Arrival: r.Timestamp.UnixMilli(), PartitionKey: r.Key, Data: r.Value}
		m.queue = append(m.queue, rec)
		m.control = append(m.control, r.Attrs.IsControl())
		m.bytes += int64(len(r.Key) + len(r.Value) + 64)
		m.next = index + 1
	}
	m.high = max(m.high, uint64(max(high, 0))+1, m.next)
	if m.bytes > limit && !m.paused {
		m.paused = true
		m.consumer.client.PauseFetchPartitions(map[string][]int32{m.consumer.config.Topic: {m.partition}})
		m.consumer.stream.series.Add(DataReadFromSourceBackpressured, 1)
	}
	if len(m.queue) > 0 {
		close(m.changed)
		m.changed = make(chan struct{})
	}
}

func (m *member) read(_ context.Context, from uint64, maxBytes int, run *Run) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(run.Records)
	run.Records, run.Next, run.End, run.Lost = run.Records[:0], from, false, 0
	n, size := 0, 0
	for n < len(m.queue) && (n == 0 || size < maxBytes) {
		r := m.queue[n]
		control := m.control[n]
		n++
		m.bytes -= int64(len(r.PartitionKey) + len(r.Data) + 64)
		if r.Index < from {
			continue
		}
		run.Next = r.Index + 1
		if !control {
			run.Records = append(run.Records, r)
			size += len(r.Data)
		}
	}
	m.queue, m.control = slices.Delete(m.queue, 0, n), slices.Delete(m.control, 0, n)
	if m.paused && len(m.queue) == 0 {
		m.paused = false
		m.consumer.client.ResumeFetchPartitions(map[string][]int32{m.consumer.config.Topic: {m.partition}})
	}
	return nil
}

func (m *member) tail() (uint64, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next, m.changed
}

// available is the index that the broker's next record will have, as far as it
// is known.
func (m *member) available() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.high
}

func (m *member) ending() <-chan struct{} { return nil }

func (m *member) number(index uint64, _ int64) string { return strconv.FormatUint(index-1, 10) }

func (m *member) maxRecord() int {
	if n := m.consumer.config.MaxRecordBytes; n > 0 {
		return n
	}
	return maxTopicRecord
}

// lag is how many records the broker has from an index on.
func (m *member) lag(next uint64) uint64 {
	high := m.available()
	return high - min(high, next)
}

// committed notes how far the stored account is.
func (m *member) committed(low uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settled = low
}

// tell writes the offsets of what is settled under the group millrace-NAME.
func (c *consumer) tell(ctx context.Context, name string) {
	offsets := kadm.Offsets{}
	c.mu.Lock()
	for partition, m := range c.members {
		m.mu.Lock()
		if m.settled > m.told {
			offsets.Add(kadm.Offset{Topic: c.config.Topic, Partition: partition, At: int64(m.settled) - 1, LeaderEpoch: -1})
			m.told = m.settled
		}
		m.mu.Unlock()
	}
	c.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	if _, err := c.admin.CommitOffsets(ctx, "millrace-"+name, offsets); err != nil && ctx.Err() == nil {
		c.stream.logger.Debug("tell the group how far delivery is", "error", err)
	}
}
