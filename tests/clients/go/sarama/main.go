// The story told by sarama.
package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	. "weir/tests/clients/story"
)

var (
	story   = New("sarama", func(Record) bool { return false })
	brokers = []string{story.Bootstrap}
	client  = Got(sarama.NewClient(brokers, config(sarama.CompressionNone)))
	admin   = Got(sarama.NewClusterAdminFromClient(client))
)

func config(codec sarama.CompressionCodec) *sarama.Config {
	c := sarama.NewConfig()
	c.Version = sarama.MaxVersion
	c.Producer.Compression = codec
	c.Producer.Partitioner = sarama.NewManualPartitioner
	c.Producer.RequiredAcks = sarama.WaitForAll
	// Without it sarama 1.61 writes a record twice now and then, to any broker: a partition's first request that meets a
	// connection just being opened closes it, with another partition's request in flight, and both are sent again.
	c.Producer.Idempotent = true
	c.Net.MaxOpenRequests = 1
	c.Producer.Return.Successes = true
	c.Producer.MaxMessageBytes = 1 << 20
	c.Consumer.Offsets.Initial = sarama.OffsetOldest
	c.Consumer.Offsets.AutoCommit.Enable = false
	c.Consumer.MaxWaitTime = 200 * time.Millisecond
	c.Consumer.Group.Session.Timeout = 6 * time.Second
	c.Consumer.Group.Heartbeat.Interval = 300 * time.Millisecond
	return c
}

func produce(records []Record, codec sarama.CompressionCodec) {
	producer := Got(sarama.NewSyncProducer(brokers, config(codec)))
	defer producer.Close()
	var batch []*sarama.ProducerMessage
	for _, record := range records {
		sent := &sarama.ProducerMessage{Topic: story.Topic, Partition: record.Partition, Timestamp: time.UnixMilli(record.Timestamp)}
		if record.Key != nil {
			sent.Key = sarama.ByteEncoder(record.Key)
		}
		if record.Value != nil {
			sent.Value = sarama.ByteEncoder(record.Value)
		}
		for _, header := range record.Headers {
			sent.Headers = append(sent.Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
		batch = append(batch, sent)
	}
	Must(producer.SendMessages(batch))
	for i, sent := range batch {
		Equal("acknowledged", fmt.Sprint(sent.Partition, "/", sent.Offset), fmt.Sprint(records[i].Partition, "/", records[i].Offset))
	}
}

func taken(message *sarama.ConsumerMessage) Record {
	got := Record{
		Partition: message.Partition, Offset: message.Offset, Timestamp: message.Timestamp.UnixMilli(), Key: message.Key, Value: message.Value,
	}
	for _, header := range message.Headers {
		got.Headers = append(got.Headers, Header{Name: string(header.Key), Value: header.Value})
	}
	return got
}

// A member of the group that collects what it reads.
type member struct {
	group    sarama.ConsumerGroup
	received Received
	mutex    sync.Mutex
	session  sarama.ConsumerGroupSession
	stop     context.CancelFunc
	done     chan struct{}
}

func join() *member {
	always, stop := context.WithCancel(context.Background())
	m := &member{group: Got(sarama.NewConsumerGroup(brokers, story.Group, config(sarama.CompressionNone))), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for always.Err() == nil {
			Must(m.group.Consume(always, []string{story.Topic}, m))
		}
	}()
	return m
}

func (m *member) leave() {
	m.stop()
	<-m.done
	Must(m.group.Close())
}

// Setup starts a generation: it begins at what was committed.
func (m *member) Setup(session sarama.ConsumerGroupSession) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.session = session
	m.received.Clear()
	return nil
}

func (m *member) Cleanup(sarama.ConsumerGroupSession) error {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.session = nil
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			m.received.Add(taken(message))
			session.MarkMessage(message, "")
		case <-session.Context().Done():
			return nil
		}
	}
}

func (m *member) held() map[int32]bool {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	held := map[int32]bool{}
	if m.session != nil {
		for _, partition := range m.session.Claims()[story.Topic] {
			held[partition] = true
		}
	}
	return held
}

func (m *member) commit() {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.session.Commit()
}

func (m *member) poll(count int) []Record {
	Until(fmt.Sprintf("%d records", count), func() bool { return len(m.received.All()) >= count })
	return m.received.All()
}

func offsets(time int64) map[int32]int64 {
	found := map[int32]int64{}
	for partition := range story.Partitions {
		found[partition] = Got(client.GetOffset(story.Topic, partition, time))
	}
	return found
}

func readFrom(partition int32, offset int64) Record {
	consumer := Got(sarama.NewConsumerFromClient(client))
	defer consumer.Close()
	reader := Got(consumer.ConsumePartition(story.Topic, partition, offset))
	defer reader.Close()
	select {
	case message := <-reader.Messages():
		return taken(message)
	case <-time.After(Deadline):
		panic("no record at " + fmt.Sprint(partition, "/", offset))
	}
}

func committed() map[int32]*sarama.OffsetFetchResponseBlock {
	answer := Got(admin.ListConsumerGroupOffsets(story.Group, map[string][]int32{story.Topic: {0, 1, 2}}))
	return answer.Blocks[story.Topic]
}

func main() {
	policy := "delete"
	detail := &sarama.TopicDetail{NumPartitions: story.Partitions, ReplicationFactor: 1, ConfigEntries: map[string]*string{"cleanup.policy": &policy}}
	Must(admin.CreateTopic(story.Topic, detail, false))
	story.Ok("create")
	Until("the topic in the list", func() bool { return Got(admin.ListTopics())[story.Topic].NumPartitions == story.Partitions })
	for _, partition := range Got(admin.DescribeTopics([]string{story.Topic}))[0].Partitions {
		Check(partition.Leader >= 0, "partition %d has no leader", partition.ID)
	}
	story.Ok("list")

	for _, codec := range []sarama.CompressionCodec{
		sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
	} {
		produce(story.Round(0), codec)
	}
	for partition, end := range offsets(sarama.OffsetNewest) {
		Equal("end", end, int64(len(story.Expected[partition])))
	}
	story.Ok("produce")

	// Two members share the partitions.
	first, second := join(), join()
	Until("both members have partitions, and together every record", func() bool {
		a, b := first.held(), second.held()
		return len(a) > 0 && len(b) > 0 && len(a)+len(b) == int(story.Partitions) &&
			len(first.received.All())+len(second.received.All()) >= len(story.Everything())
	})
	story.Compare(append(first.received.All(), second.received.All()...), story.Everything())
	for _, m := range []*member{first, second} {
		for _, record := range m.received.All() {
			Check(m.held()[record.Partition], "a member got a record of another's partition: %v", record)
		}
		m.commit()
	}
	story.Ok("consume")

	// One member leaves.
	first.leave()
	Until("the other member has every partition", func() bool { return len(second.held()) == int(story.Partitions) })
	more := story.Round(6)
	produce(more, sarama.CompressionNone)
	story.Compare(second.poll(len(more)), more)
	second.commit()
	story.Ok("takeover")

	// While a member is there.
	group := Got(admin.DescribeConsumerGroups([]string{story.Group}))[0]
	Equal("state", group.State, "Stable")
	Equal("members", len(group.Members), 1)
	for _, only := range group.Members {
		Equal("assigned", len(Got(only.GetMemberAssignment()).Topics[story.Topic]), int(story.Partitions))
	}
	_, listed := Got(admin.ListConsumerGroups())[story.Group]
	Check(listed, "the group is not listed")
	for partition, block := range committed() {
		Equal("committed", block.Offset, int64(len(story.Expected[partition])))
	}
	story.Ok("groups")

	middle := story.Middle()
	second.leave()
	half := map[int32]sarama.OffsetAndMetadata{}
	for partition, offset := range middle {
		half[partition] = sarama.OffsetAndMetadata{Offset: offset, LeaderEpoch: -1, Metadata: "half"}
	}
	Got(admin.AlterConsumerGroupOffsets(story.Group, map[string]map[int32]sarama.OffsetAndMetadata{story.Topic: half}, nil))
	third := join()
	rest := story.From(middle)
	story.Compare(third.poll(len(rest)), rest)
	Equal("metadata", committed()[0].Metadata, "half")
	third.leave()
	story.Ok("resume")

	administer()
}

func administer() {
	wanted := story.Expected[1][len(story.Expected[1])/2]
	found := Got(client.GetOffset(story.Topic, 1, wanted.Timestamp-500))
	Equal("offset of a time", found, wanted.Offset)
	got := readFrom(1, found)
	Check(got.Same(wanted), "at a time: got %v, want %v", got, wanted)
	story.Ok("seek")

	retention := "123456789"
	Must(admin.IncrementalAlterConfig(sarama.TopicResource, story.Topic, map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &retention},
	}, false))
	Until("the altered config reads back", func() bool {
		entries := Got(admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: story.Topic, ConfigNames: []string{"retention.ms"}}))
		Equal("described configs", len(entries), 1)
		return entries[0].Value == retention && entries[0].Source == sarama.SourceTopic
	})
	story.Ok("config")

	Must(admin.DeleteRecords(story.Topic, map[int32]int64{0: 5}))
	for partition, start := range offsets(sarama.OffsetOldest) {
		Equal("start", start, map[int32]int64{0: 5}[partition])
	}
	got = readFrom(0, sarama.OffsetOldest)
	Check(got.Same(story.Expected[0][5]), "at the log start: got %v, want %v", got, story.Expected[0][5])
	story.Ok("trim")

	Must(admin.DeleteConsumerGroup(story.Group))
	_, listed := Got(admin.ListConsumerGroups())[story.Group]
	Check(!listed, "the group is still listed")
	Must(admin.DeleteTopic(story.Topic))
	Until("the topic is gone from the list", func() bool {
		_, listed := Got(admin.ListTopics())[story.Topic]
		return !listed
	})
	story.Ok("delete")
}
