// The story told by franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	. "weir/tests/clients/story"
)

var (
	story  = New("franz-go", func(Record) bool { return false })
	admin  = kadm.NewClient(client())
	always = context.Background()
)

func client(options ...kgo.Opt) *kgo.Client {
	return Got(kgo.NewClient(append(options, kgo.SeedBrokers(story.Bootstrap), kgo.FetchMaxWait(200*time.Millisecond))...))
}

func produce(records []Record, codec kgo.CompressionCodec) {
	producer := client(kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(20*time.Millisecond))
	defer producer.Close()
	var batch []*kgo.Record
	for _, record := range records {
		sent := &kgo.Record{
			Topic: story.Topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.Timestamp), Key: record.Key, Value: record.Value,
		}
		for _, header := range record.Headers {
			sent.Headers = append(sent.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		batch = append(batch, sent)
	}
	for i, result := range producer.ProduceSync(always, batch...) {
		Must(result.Err)
		Equal("acknowledged", fmt.Sprint(batch[i].Partition, "/", batch[i].Offset), fmt.Sprint(records[i].Partition, "/", records[i].Offset))
	}
}

// A member of the group that collects what it reads.
type member struct {
	*kgo.Client
	received Received
	mutex    sync.Mutex
	held     map[int32]bool
}

func join() *member {
	m := &member{held: map[int32]bool{}}
	m.Client = client(
		kgo.ConsumerGroup(story.Group), kgo.ConsumeTopics(story.Topic), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.Balancers(kgo.RangeBalancer()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, assigned map[string][]int32) {
			m.received.Clear()
			m.hold(assigned, true)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, revoked map[string][]int32) { m.hold(revoked, false) }),
	)
	return m
}

func (m *member) hold(changed map[string][]int32, held bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, partition := range changed[story.Topic] {
		m.held[partition] = held
		if !held {
			delete(m.held, partition)
		}
	}
}

func (m *member) holds() map[int32]bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return maps.Clone(m.held)
}

func taken(record *kgo.Record) Record {
	got := Record{Partition: record.Partition, Offset: record.Offset, Timestamp: record.Timestamp.UnixMilli(), Key: record.Key, Value: record.Value}
	for _, header := range record.Headers {
		got.Headers = append(got.Headers, Header{Name: header.Key, Value: header.Value})
	}
	return got
}

// read polls once; no rebalance comes between a poll and the records that it gave.
func (m *member) read() {
	defer m.AllowRebalance()
	soon, cancel := context.WithTimeout(always, 50*time.Millisecond)
	defer cancel()
	fetches := m.PollFetches(soon)
	fetches.EachError(func(_ string, _ int32, err error) {
		Check(errors.Is(err, context.DeadlineExceeded), "consuming: %v", err)
	})
	fetches.EachRecord(func(record *kgo.Record) { m.received.Add(taken(record)) })
}

func (m *member) poll(count int) []Record {
	Until(fmt.Sprintf("%d records", count), func() bool {
		m.read()
		return len(m.received.All()) >= count
	})
	return m.received.All()
}

func readFrom(partition int32, offset kgo.Offset) Record {
	reader := client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{story.Topic: {partition: offset}}))
	defer reader.Close()
	soon, cancel := context.WithTimeout(always, Deadline)
	defer cancel()
	fetches := reader.PollFetches(soon)
	Must(fetches.Err())
	return taken(fetches.Records()[0])
}

func main() {
	Must(Got(admin.CreateTopic(always, story.Partitions, 1, map[string]*string{"cleanup.policy": kadm.StringPtr("delete")}, story.Topic)).Err)
	story.Ok("create")
	Until("the topic in the list", func() bool { return Got(admin.ListTopics(always)).Has(story.Topic) })
	described := Got(admin.ListTopics(always, story.Topic))[story.Topic]
	Equal("partitions", len(described.Partitions), int(story.Partitions))
	for _, partition := range described.Partitions {
		Check(partition.Leader >= 0, "partition %d has no leader", partition.Partition)
	}
	story.Ok("list")

	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		produce(story.Round(0), codec)
	}
	Got(admin.ListEndOffsets(always, story.Topic)).Each(func(end kadm.ListedOffset) {
		Must(end.Err)
		Equal("end", end.Offset, int64(len(story.Expected[end.Partition])))
	})
	story.Ok("produce")

	// Two members share the partitions.
	first, second := join(), join()
	Until("both members have partitions, and together every record", func() bool {
		first.read()
		second.read()
		return len(first.holds()) > 0 && len(second.holds()) > 0 && len(first.holds())+len(second.holds()) == int(story.Partitions) &&
			len(first.received.All())+len(second.received.All()) >= len(story.Everything())
	})
	story.Compare(append(first.received.All(), second.received.All()...), story.Everything())
	for _, m := range []*member{first, second} {
		for _, record := range m.received.All() {
			Check(m.holds()[record.Partition], "a member got a record of another's partition: %v", record)
		}
		Must(m.CommitUncommittedOffsets(always))
	}
	story.Ok("consume")

	// One member leaves.
	first.Close()
	Until("the other member has every partition", func() bool {
		second.read()
		return len(second.holds()) == int(story.Partitions)
	})
	second.received.Clear()
	more := story.Round(6)
	produce(more, kgo.NoCompression())
	story.Compare(second.poll(len(more)), more)
	Must(second.CommitUncommittedOffsets(always))
	story.Ok("takeover")

	groups(second)

	middle := story.Middle()
	commit := kadm.Offsets{}
	for partition, offset := range middle {
		commit.Add(kadm.Offset{Topic: story.Topic, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: "half"})
	}
	second.Close()
	Must(admin.CommitAllOffsets(always, story.Group, commit))
	third := join()
	rest := story.From(middle)
	story.Compare(third.poll(len(rest)), rest)
	committed, _ := Got(admin.FetchOffsets(always, story.Group)).Lookup(story.Topic, 0)
	Equal("metadata", committed.Metadata, "half")
	third.Close()
	story.Ok("resume")

	if story.RefusesTransactions {
		transactions()
	}
	administer()
}

func groups(only *member) {
	group := Got(admin.DescribeGroups(always, story.Group))[story.Group]
	Must(group.Err)
	Equal("state", group.State, "Stable")
	Equal("members", len(group.Members), 1)
	Equal("assigned", len(group.AssignedPartitions()[story.Topic]), len(only.holds()))
	Check(Got(admin.ListGroups(always))[story.Group].Group == story.Group, "the group is not listed")
	committed := Got(admin.FetchOffsets(always, story.Group))
	for partition, records := range story.Expected {
		offset, _ := committed.Lookup(story.Topic, int32(partition))
		Equal("committed", offset.At, int64(len(records)))
	}
	story.Ok("groups")
}

func administer() {
	wanted := story.Expected[1][len(story.Expected[1])/2]
	found, _ := Got(admin.ListOffsetsAfterMilli(always, wanted.Timestamp-500, story.Topic)).Lookup(story.Topic, 1)
	Must(found.Err)
	Equal("offset of a time", found.Offset, wanted.Offset)
	Equal("time of that offset", found.Timestamp, wanted.Timestamp)
	for _, offset := range []kgo.Offset{kgo.NewOffset().At(found.Offset), kgo.NewOffset().AfterMilli(wanted.Timestamp - 500)} {
		got := readFrom(1, offset)
		Check(got.Same(wanted), "at a time: got %v, want %v", got, wanted)
	}
	story.Ok("seek")

	altered := Got(admin.AlterTopicConfigs(always, []kadm.AlterConfig{{Name: "retention.ms", Value: kadm.StringPtr("123456789")}}, story.Topic))
	Must(Got(altered.On(story.Topic, nil)).Err)
	Until("the altered config reads back", func() bool {
		configs := Got(Got(admin.DescribeTopicConfigs(always, story.Topic)).On(story.Topic, nil))
		for _, config := range configs.Configs {
			if config.Key == "retention.ms" {
				return config.MaybeValue() == "123456789" && config.Source.String() == "DYNAMIC_TOPIC_CONFIG"
			}
		}
		return false
	})
	story.Ok("config")

	trim := kadm.Offsets{}
	trim.Add(kadm.Offset{Topic: story.Topic, Partition: 0, At: 5})
	trimmed := Got(admin.DeleteRecords(always, trim))[story.Topic][0]
	Must(trimmed.Err)
	Equal("log start", trimmed.LowWatermark, 5)
	Got(admin.ListStartOffsets(always, story.Topic)).Each(func(start kadm.ListedOffset) {
		Must(start.Err)
		Equal("start", start.Offset, map[int32]int64{0: 5}[start.Partition])
	})
	got := readFrom(0, kgo.NewOffset().AtStart())
	Check(got.Same(story.Expected[0][5]), "at the log start: got %v, want %v", got, story.Expected[0][5])
	story.Ok("trim")

	Must(Got(admin.DeleteGroup(always, story.Group)).Err)
	_, listed := Got(admin.ListGroups(always))[story.Group]
	Check(!listed, "the group is still listed")
	Must(Got(admin.DeleteTopic(always, story.Topic)).Err)
	Until("the topic is gone from the list", func() bool { return !Got(admin.ListTopics(always)).Has(story.Topic) })
	story.Ok("delete")
}

func transactions() {
	producer := client(kgo.TransactionalID(story.Group))
	defer producer.Close()
	started := time.Now()
	soon, cancel := context.WithTimeout(always, 10*time.Second)
	defer cancel()
	// The client asks for its producer id on its own: beginning fails already when the refusal was faster.
	err := producer.BeginTransaction()
	if err == nil {
		err = producer.ProduceSync(soon, &kgo.Record{Topic: story.Topic, Value: []byte("never")}).FirstErr()
	}
	Check(errors.Is(err, kerr.TransactionalIDAuthorizationFailed), "producing in a transaction: %v", err)
	Check(time.Since(started) < 5*time.Second, "refusing took %v", time.Since(started))
	story.Ok("transactions")
}
