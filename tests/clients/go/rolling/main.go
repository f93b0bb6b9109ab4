// franz-go while brokers restart; what it prints is described in the README of the clients.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var (
	topic      = os.Getenv("TOPIC")
	partitions = number("PARTITIONS")
	rate       = number("RATE")
	patience   = time.Duration(number("PATIENCE")) * time.Second
	always     = context.Background()

	telling      sync.Mutex
	delivered    sync.Map
	count        atomic.Int64
	acknowledged atomic.Int64
	ready        atomic.Bool
	produced     atomic.Bool
)

func number(name string) int {
	value, err := strconv.Atoi(os.Getenv(name))
	must(err)
	return value
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tell(format string, arguments ...any) {
	line := strings.ReplaceAll(fmt.Sprintf(format, arguments...), "\n", " ")
	telling.Lock()
	defer telling.Unlock()
	fmt.Println(time.Now().UnixMilli(), line)
}

func client(options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append(options, kgo.SeedBrokers(strings.Split(os.Getenv("BOOTSTRAP"), ",")...))...)
	must(err)
	return made
}

type member struct {
	*kgo.Client
	name string
	held atomic.Int64
}

func join(name string) *member {
	m := &member{name: name}
	changed := func(what string, held int) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, of map[string][]int32) {
			list := of[topic]
			if len(list) == 0 {
				return
			}
			slices.Sort(list)
			tell("%s %s %s", what, name, strings.ReplaceAll(strings.Trim(fmt.Sprint(list), "[]"), " ", ","))
			m.held.Store(int64(held * len(list)))
		}
	}
	m.Client = client(
		kgo.ConsumerGroup(os.Getenv("GROUP")), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.Balancers(kgo.RangeBalancer()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(200*time.Millisecond),
		kgo.OnPartitionsAssigned(changed("assigned", 1)), kgo.OnPartitionsRevoked(changed("revoked", 0)), kgo.OnPartitionsLost(changed("lost", 0)),
	)
	return m
}

func (m *member) poll() {
	defer m.AllowRebalance()
	soon, cancel := context.WithTimeout(always, 100*time.Millisecond)
	defer cancel()
	fetches := m.PollFetches(soon)
	fetches.EachError(func(_ string, partition int32, err error) {
		if !errors.Is(err, context.DeadlineExceeded) {
			tell("error %s partition %d: %v", m.name, partition, err)
		}
	})
	fetches.EachRecord(func(record *kgo.Record) {
		sequence, _, _ := strings.Cut(string(record.Value), ":")
		tell("read %s %d %d %s", m.name, record.Partition, record.Offset, sequence)
		if _, again := delivered.LoadOrStore([2]int64{int64(record.Partition), record.Offset}, true); !again {
			count.Add(1)
		}
	})
}

func (m *member) commit() {
	if err := m.CommitUncommittedOffsets(always); err != nil {
		tell("error %s committing: %v", m.name, err)
	}
}

func (m *member) run(done *sync.WaitGroup) {
	defer done.Done()
	for committed := time.Now(); !produced.Load() || count.Load() < acknowledged.Load(); {
		m.poll()
		if ready.Load() && time.Since(committed) > 300*time.Millisecond {
			m.commit()
			committed = time.Now()
		}
	}
	m.commit()
	tell("finished %s", m.name)
	m.LeaveGroup()
	m.Close()
}

func produce(finishing chan struct{}) {
	producer := client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	padding := strings.Repeat("x", 100)
	began := time.Now()
	for sequence := 0; ; sequence++ {
		select {
		case <-finishing:
			must(producer.Flush(always))
			producer.Close()
			return
		case <-time.After(time.Until(began.Add(time.Duration(sequence) * time.Second / time.Duration(rate)))):
		}
		sent := &kgo.Record{Topic: topic, Partition: int32(sequence % partitions), Value: fmt.Appendf(nil, "%d:%s", sequence, padding)}
		producer.Produce(always, sent, func(placed *kgo.Record, err error) {
			if err != nil {
				tell("error producer %d %v", sequence, err)
				return
			}
			acknowledged.Add(1)
			tell("ack %d %d %d", sequence, placed.Partition, placed.Offset)
		})
	}
}

func main() {
	admin := kadm.NewClient(client())
	_, err := admin.CreateTopic(always, int32(partitions), 1, nil, topic)
	must(err)
	members := []*member{join("one"), join("two")}
	var done sync.WaitGroup
	for _, m := range members {
		done.Add(1)
		go m.run(&done)
	}
	for slices.ContainsFunc(members, func(m *member) bool { return m.held.Load() != int64(partitions/2) }) {
		time.Sleep(10 * time.Millisecond)
	}
	tell("ready")
	ready.Store(true)
	finishing := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(finishing)
	}()
	produce(finishing)
	tell("produced %d", acknowledged.Load())
	produced.Store(true)
	finished := make(chan struct{})
	go func() {
		done.Wait()
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(patience):
		tell("error members have read %d of %d records", count.Load(), acknowledged.Load())
	}
}
