// A worker of tests/torture on franz-go: a client as a process, which writes what it does and sees as history.rs there says.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var (
	role       = flag.String("role", "", "producer, member or observer")
	name       = flag.String("name", "", "")
	bootstrap  = flag.String("bootstrap", "", "")
	folder     = flag.String("folder", "", "where the history goes")
	start      = flag.Int64("start", 0, "when the run began: microseconds since 1970")
	topicList  = flag.String("topics", "", "names, separated by commas")
	partitions = flag.Int("partitions", 0, "of each topic")
	group      = flag.String("group", "", "an observer takes several, separated by commas")
	idempotent = flag.Bool("idempotent", false, "")
	rate       = flag.Int("rate", 100, "records a second")

	seconds = flag.Int("patience", 90, "how long the client may take to get on once all is healed")

	patience time.Duration
	began    = time.Now()
	offset   int64
	history  *os.File
	writing  sync.Mutex
	always   = context.Background()
)

type fields map[string]any

func record(kind, operation string, more fields) {
	writing.Lock()
	defer writing.Unlock()
	event := fields{"client": *name, "kind": kind, "operation": operation, "time": offset + time.Since(began).Microseconds()}
	maps.Copy(event, more)
	line, err := json.Marshal(event)
	must(err)
	_, err = history.Write(append(line, '\n'))
	must(err)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func problem(format string, arguments ...any) {
	record("info", "problem", fields{"error": fmt.Sprintf(format, arguments...)})
}

func partitionName(topic string, partition int32) string {
	return fmt.Sprintf("%s/%d", topic, partition)
}

func topics() []string { return strings.Split(*topicList, ",") }

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append(
		options, kgo.SeedBrokers(strings.Split(*bootstrap, ",")...), kgo.ClientID(*name), kgo.RequestTimeoutOverhead(5*time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RequestRetries(1_000_000), kgo.RetryTimeout(patience), kgo.DialTimeout(2*time.Second),
	)...)
	must(err)
	return made
}

func main() {
	flag.Parse()
	patience = time.Duration(*seconds) * time.Second
	offset = max(time.Now().UnixMicro()-*start, 0)
	began = time.Now()
	var err error
	history, err = os.OpenFile(filepath.Join(*folder, *name+".history"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	must(err)
	var inGroup any
	if *role == "member" {
		inGroup = *group
	}
	record("info", "start", fields{"role": *role, "library": "franz-go", "idempotent": *idempotent, "group": inGroup})
	finishing := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(finishing)
	}()
	switch *role {
	case "producer":
		produce(finishing)
	case "member":
		share(finishing)
	case "observer":
		observe(finishing)
	default:
		must(fmt.Errorf("no role %q", *role))
	}
}

func payload(sequence int) []byte {
	padding := sequence % 50 * 4
	if padding == 0 {
		padding = 6000
	}
	return []byte(fmt.Sprintf("%s:%d:%s", *name, sequence, strings.Repeat("x", padding)))
}

func produce(finishing chan struct{}) {
	options := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5 * time.Millisecond), kgo.RecordRetries(1_000_000),
		kgo.ProduceRequestTimeout(10 * time.Second), kgo.MaxBufferedRecords(100_000),
	}
	if !*idempotent {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1), kgo.RecordDeliveryTimeout(15*time.Second))
	}
	producer := client(options...)
	var open atomic.Int64
	names := topics()
	sequence := 0
	for {
		for range 1 + sequence*7%23 {
			number, place := sequence, sequence%(len(names)**partitions)
			topic, partition := names[place%len(names)], int32(place/len(names))
			at := partitionName(topic, partition)
			record("invoke", "produce", fields{"partition": at, "sequence": number})
			open.Add(1)
			sent := &kgo.Record{Topic: topic, Partition: partition, Value: payload(number)}
			producer.Produce(always, sent, func(done *kgo.Record, err error) {
				if err != nil {
					record("info", "produce", fields{"partition": at, "sequence": number, "error": err.Error()})
				} else {
					record("ok", "produce", fields{"partition": at, "sequence": number, "offset": done.Offset})
				}
				open.Add(-1)
			})
			sequence++
		}
		due := time.Duration(sequence) * time.Second / time.Duration(*rate)
		select {
		case <-finishing:
			soon, cancel := context.WithTimeout(always, patience)
			defer cancel()
			_ = producer.Flush(soon)
			if left := open.Load(); left > 0 {
				problem("%d records are without an answer %v after all was healed", left, patience)
			}
			return
		case <-time.After(max(due-time.Since(began), 0)):
		}
	}
}

// A member of a group, with what it holds and has read.
type member struct {
	*kgo.Client
	mutex     sync.Mutex
	positions map[string]map[int32]kgo.EpochOffset
	committed map[string]map[int32]kgo.EpochOffset
}

func clone(offsets map[string]map[int32]kgo.EpochOffset) map[string]map[int32]kgo.EpochOffset {
	copied := map[string]map[int32]kgo.EpochOffset{}
	for topic, of := range offsets {
		copied[topic] = maps.Clone(of)
	}
	return copied
}

func same(a, b map[string]map[int32]kgo.EpochOffset) bool {
	return maps.EqualFunc(a, b, func(x, y map[int32]kgo.EpochOffset) bool { return maps.Equal(x, y) })
}

func listed(held map[string][]int32) []string {
	names := []string{}
	for topic, of := range held {
		for _, partition := range of {
			names = append(names, partitionName(topic, partition))
		}
	}
	slices.Sort(names)
	return names
}

func (m *member) forget(held map[string][]int32) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for topic, of := range held {
		for _, partition := range of {
			delete(m.positions[topic], partition)
			delete(m.committed[topic], partition)
		}
	}
}

func (m *member) commit(within time.Duration) bool {
	m.mutex.Lock()
	positions := clone(m.positions)
	isNew := !same(positions, m.committed)
	m.mutex.Unlock()
	if !isNew {
		return true
	}
	offsets := map[string]int64{}
	for topic, of := range positions {
		for partition, at := range of {
			offsets[partitionName(topic, partition)] = at.Offset
		}
	}
	record("invoke", "commit", fields{"offsets": offsets})
	soon, cancel := context.WithTimeout(always, within)
	defer cancel()
	var failure error
	m.CommitOffsetsSync(soon, positions, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, answer *kmsg.OffsetCommitResponse, err error) {
		failure = err
		if err == nil {
			for _, topic := range answer.Topics {
				for _, partition := range topic.Partitions {
					if err := kerr.ErrorForCode(partition.ErrorCode); err != nil && failure == nil {
						failure = err
					}
				}
			}
		}
	})
	if failure != nil {
		// Also where it is refused: a try before that, whose answer was lost, may have counted.
		record("info", "commit", fields{"offsets": offsets, "error": failure.Error()})
		return false
	}
	record("ok", "commit", fields{"offsets": offsets})
	m.mutex.Lock()
	m.committed = positions
	m.mutex.Unlock()
	return true
}

func identity(value []byte) (string, uint64) {
	parts := strings.SplitN(string(value), ":", 3)
	if len(parts) != 3 {
		must(fmt.Errorf("a foreign record: %q", value))
	}
	sequence, err := strconv.ParseUint(parts[1], 10, 64)
	must(err)
	return parts[0], sequence
}

// read polls once; no rebalance comes between a poll and the history's entry of it.
func (m *member) read() {
	defer m.AllowRebalance()
	soon, cancel := context.WithTimeout(always, 100*time.Millisecond)
	defer cancel()
	fetches := m.PollRecords(soon, 1000)
	fetches.EachPartition(func(fetched kgo.FetchTopicPartition) {
		var run []any
		first, next := int64(-1), int64(-1)
		write := func() {
			if len(run) > 0 {
				record("ok", "read", fields{"partition": partitionName(fetched.Topic, fetched.Partition), "offset": first, "records": run})
			}
			run = nil
		}
		for _, got := range fetched.Records {
			if got.Offset != next {
				write()
				first = got.Offset
			}
			client, sequence := identity(got.Value)
			run = append(run, []any{client, sequence})
			next = got.Offset + 1
			m.mutex.Lock()
			if m.positions[fetched.Topic] == nil {
				m.positions[fetched.Topic] = map[int32]kgo.EpochOffset{}
			}
			m.positions[fetched.Topic][fetched.Partition] = kgo.EpochOffset{Epoch: got.LeaderEpoch, Offset: next}
			m.mutex.Unlock()
		}
		write()
	})
}

func share(finishing chan struct{}) {
	m := &member{positions: map[string]map[int32]kgo.EpochOffset{}}
	m.Client = client(
		kgo.ConsumerGroup(*group), kgo.ConsumeTopics(topics()...), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.RangeBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.SessionTimeout(6*time.Second), kgo.RebalanceTimeout(10*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, c *kgo.Client, assigned map[string][]int32) {
			m.forget(assigned)
			_, generation := c.GroupMetadata()
			record("ok", "assign", fields{"partitions": listed(assigned), "generation": generation})
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) {
			m.commit(2 * time.Second)
			record("ok", "revoke", fields{"partitions": listed(revoked)})
			m.forget(revoked)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
			record("ok", "revoke", fields{"partitions": listed(lost)})
			m.forget(lost)
		}),
	)
	admin := kadm.NewClient(m.Client)
	var since time.Time
	for committed := time.Now(); ; {
		m.read()
		done := false
		if time.Since(committed) > 300*time.Millisecond {
			done = m.commit(10 * time.Second)
			committed = time.Now()
		}
		select {
		case <-finishing:
		default:
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if done && m.isAtEnd(admin) {
			m.LeaveGroup()
			return
		}
		if time.Since(since) > patience {
			problem("not read or committed to the end within %v: %v", patience, m.positions)
			return
		}
	}
}

// What others have read to its end is not read again.
func (m *member) isAtEnd(admin *kadm.Client) bool {
	soon, cancel := context.WithTimeout(always, 5*time.Second)
	defer cancel()
	ends, err := admin.ListEndOffsets(soon, topics()...)
	if err != nil {
		return false
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for topic, of := range m.positions {
		for partition, at := range of {
			if end, ok := ends.Lookup(topic, partition); !ok || end.Err != nil || end.Offset > at.Offset {
				return false
			}
		}
	}
	return true
}

func observe(finishing chan struct{}) {
	admin := kadm.NewClient(client())
	groups := strings.Split(*group, ",")
	look := func() bool {
		good := true
		soon, cancel := context.WithTimeout(always, 15*time.Second)
		defer cancel()
		record("invoke", "ends", fields{"offsets": fields{}})
		ends, err := admin.ListEndOffsets(soon, topics()...)
		offsets := map[string][2]int64{}
		ends.Each(func(end kadm.ListedOffset) {
			if end.Err == nil {
				offsets[partitionName(end.Topic, end.Partition)] = [2]int64{end.Offset, int64(end.LeaderEpoch)}
			}
		})
		if len(offsets) > 0 {
			record("ok", "ends", fields{"offsets": offsets})
		} else {
			record("fail", "ends", fields{"offsets": fields{}})
		}
		good = good && err == nil && len(offsets) == len(topics())**partitions
		for _, of := range groups {
			record("invoke", "committed", fields{"group": of, "offsets": fields{}})
			answer, err := admin.FetchOffsets(soon, of)
			told := map[string]int64{}
			answer.Each(func(one kadm.OffsetResponse) {
				if one.Err == nil {
					told[partitionName(one.Topic, one.Partition)] = one.At
				}
			})
			kind := "ok"
			if err != nil {
				kind, good = "fail", false
			}
			record(kind, "committed", fields{"group": of, "offsets": told})
		}
		return good
	}
	for {
		good := look()
		select {
		case <-finishing:
			if end := time.Now().Add(patience); !good {
				for !look() {
					if time.Now().After(end) {
						problem("ends and committed offsets are not told %v after all was healed", patience)
						return
					}
				}
			}
			return
		case <-time.After(250 * time.Millisecond):
		}
	}
}
