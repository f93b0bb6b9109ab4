// The story told by segmentio/kafka-go.
package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	. "weir/tests/clients/story"
)

var (
	story  = New("kafka-go", func(Record) bool { return false })
	client = &kafka.Client{Addr: kafka.TCP(story.Bootstrap), Timeout: 10 * time.Second}
	always = context.Background()
)

func produce(records []Record, codec kafka.Compression) {
	var mutex sync.Mutex
	acknowledged := 0
	writer := &kafka.Writer{
		Addr: client.Addr, Topic: story.Topic, RequiredAcks: kafka.RequireAll, Compression: codec, BatchTimeout: 20 * time.Millisecond,
		// The writer has no other way to choose a partition.
		Balancer: kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return int(message.WriterData.(Record).Partition) }),
		Completion: func(messages []kafka.Message, err error) {
			mutex.Lock()
			defer mutex.Unlock()
			Must(err)
			for _, message := range messages {
				want := message.WriterData.(Record)
				Equal("acknowledged", fmt.Sprint(message.Partition, "/", message.Offset), fmt.Sprint(want.Partition, "/", want.Offset))
				acknowledged++
			}
		},
	}
	var batch []kafka.Message
	for _, record := range records {
		sent := kafka.Message{Key: record.Key, Value: record.Value, Time: time.UnixMilli(record.Timestamp), WriterData: record}
		for _, header := range record.Headers {
			sent.Headers = append(sent.Headers, kafka.Header{Key: header.Name, Value: header.Value})
		}
		batch = append(batch, sent)
	}
	Must(writer.WriteMessages(always, batch...))
	Must(writer.Close())
	Equal("acknowledged records", acknowledged, len(records))
}

func taken(message kafka.Message) Record {
	got := Record{
		Partition: int32(message.Partition), Offset: message.Offset, Timestamp: message.Time.UnixMilli(), Key: message.Key, Value: message.Value,
	}
	for _, header := range message.Headers {
		got.Headers = append(got.Headers, Header{Name: header.Key, Value: header.Value})
	}
	return got
}

func nullIfEmpty(data []byte) []byte {
	if len(data) == 0 {
		return nil
	}
	return data
}

// asRead is what the library makes of records as it reads them: what is empty may come out as null.
func asRead(records []Record) []Record {
	read := slices.Clone(records)
	for i := range read {
		record := &read[i]
		record.Key, record.Value, record.Headers = nullIfEmpty(record.Key), nullIfEmpty(record.Value), slices.Clone(record.Headers)
		for j := range record.Headers {
			record.Headers[j].Value = nullIfEmpty(record.Headers[j].Value)
		}
	}
	return read
}

// A member of the group that collects what it reads. The reader tells no assignment: the group's description does.
type member struct {
	*kafka.Reader
	name     string
	received Received
}

func join(name string) *member {
	m := &member{name: name, Reader: kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{story.Bootstrap}, GroupID: story.Group, Topic: story.Topic, StartOffset: kafka.FirstOffset,
		Dialer:  &kafka.Dialer{ClientID: name, Timeout: 10 * time.Second},
		MaxWait: 200 * time.Millisecond, HeartbeatInterval: 300 * time.Millisecond, SessionTimeout: 6 * time.Second,
		RebalanceTimeout: 6 * time.Second, JoinGroupBackoff: 100 * time.Millisecond,
	})}
	go func() {
		for {
			message, err := m.FetchMessage(always)
			if err != nil {
				return // closed
			}
			m.received.Add(taken(message))
		}
	}()
	return m
}

// described is the partitions of each member of a stable group.
func described() map[string][]int {
	answer, err := client.DescribeGroups(always, &kafka.DescribeGroupsRequest{GroupIDs: []string{story.Group}})
	Must(err)
	group := answer.Groups[0]
	Must(group.Error)
	held := map[string][]int{}
	if group.GroupState == "Stable" {
		for _, member := range group.Members {
			for _, topic := range member.MemberAssignments.Topics {
				held[member.ClientID] = append(held[member.ClientID], topic.Partitions...)
			}
		}
	}
	return held
}

// read is what a member got of a partition; a record that came again after a rebalance counts once, if it is the same.
func (m *member) read(partition int) []Record {
	var once []Record
	for _, record := range m.received.All() {
		if record.Partition != int32(partition) {
			continue
		}
		if record.Offset < int64(len(once)) {
			Check(record.Same(once[record.Offset]), "came again as %v, before as %v", record, once[record.Offset])
			continue
		}
		Equal("next offset", record.Offset, int64(len(once)))
		once = append(once, record)
	}
	return once
}

func (m *member) commit(ends map[int]int64) {
	var last []kafka.Message
	for partition, end := range ends {
		last = append(last, kafka.Message{Topic: story.Topic, Partition: partition, Offset: end - 1})
	}
	Must(m.CommitMessages(always, last...))
}

func offsets(request func(int) kafka.OffsetRequest) map[int]kafka.PartitionOffsets {
	var asked []kafka.OffsetRequest
	for partition := range int(story.Partitions) {
		asked = append(asked, request(partition))
	}
	found := map[int]kafka.PartitionOffsets{}
	for _, answer := range Got(client.ListOffsets(always, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{story.Topic: asked}})).Topics[story.Topic] {
		Must(answer.Error)
		found[answer.Partition] = answer
	}
	return found
}

func listed() bool {
	for _, topic := range Got(client.Metadata(always, &kafka.MetadataRequest{})).Topics {
		if topic.Name == story.Topic && topic.Error == nil {
			Equal("partitions", len(topic.Partitions), int(story.Partitions))
			for _, partition := range topic.Partitions {
				Check(partition.Error == nil && partition.Leader.Port != 0, "partition %d has no leader", partition.ID)
			}
			return true
		}
	}
	return false
}

func groupListed() bool {
	for _, group := range Got(client.ListGroups(always, &kafka.ListGroupsRequest{})).Groups {
		if group.GroupID == story.Group {
			return true
		}
	}
	return false
}

func committed() map[int]kafka.OffsetFetchPartition {
	answer := Got(client.OffsetFetch(always, &kafka.OffsetFetchRequest{GroupID: story.Group, Topics: map[string][]int{story.Topic: {0, 1, 2}}}))
	Must(answer.Error)
	found := map[int]kafka.OffsetFetchPartition{}
	for _, partition := range answer.Topics[story.Topic] {
		found[partition.Partition] = partition
	}
	return found
}

func main() {
	created := Got(client.CreateTopics(always, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: story.Topic, NumPartitions: int(story.Partitions), ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "cleanup.policy", ConfigValue: "delete"}},
	}}}))
	Must(created.Errors[story.Topic])
	story.Ok("create")
	Until("the topic in the list", listed)
	story.Ok("list")

	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		produce(story.Round(0), codec)
	}
	for partition, end := range offsets(kafka.LastOffsetOf) {
		Equal("end", end.LastOffset, int64(len(story.Expected[partition])))
	}
	story.Ok("produce")

	// Two members share the partitions.
	members := []*member{join("first"), join("second")}
	var held map[string][]int
	Until("both members have partitions, and every record of them", func() bool {
		held = described()
		for _, m := range members {
			if len(held[m.name]) == 0 {
				return false
			}
			for _, partition := range held[m.name] {
				if len(m.read(partition)) < len(story.Expected[partition]) {
					return false
				}
			}
		}
		return true
	})
	var got []Record
	for _, m := range members {
		ends := map[int]int64{}
		for _, partition := range held[m.name] {
			got = append(got, m.read(partition)...)
			ends[partition] = int64(len(story.Expected[partition]))
		}
		m.commit(ends)
	}
	story.Compare(asRead(got), asRead(story.Everything()))
	story.Ok("consume")

	// One member leaves.
	first, second := members[0], members[1]
	Must(first.Close())
	Until("the other member has every partition", func() bool { return len(described()["second"]) == int(story.Partitions) })
	second.received.Clear()
	more := story.Round(6)
	produce(more, 0)
	Until("the records produced since", func() bool { return len(second.received.All()) >= len(more) })
	story.Compare(asRead(second.received.All()), asRead(more))
	ends := map[int]int64{}
	for partition, records := range story.Expected {
		ends[partition] = int64(len(records))
	}
	second.commit(ends)
	story.Ok("takeover")

	// While a member is there.
	Equal("members", len(described()), 1)
	Check(groupListed(), "the group is not listed")
	for partition, offset := range committed() {
		Equal("committed", offset.CommittedOffset, ends[partition])
	}
	story.Ok("groups")

	middle := story.Middle()
	Must(second.Close())
	var half []kafka.OffsetCommit
	for partition, offset := range middle {
		half = append(half, kafka.OffsetCommit{Partition: int(partition), Offset: offset, Metadata: "half"})
	}
	answer := Got(client.OffsetCommit(always, &kafka.OffsetCommitRequest{GroupID: story.Group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{story.Topic: half}}))
	for _, partition := range answer.Topics[story.Topic] {
		Must(partition.Error)
	}
	third := join("third")
	rest := story.From(middle)
	Until("the rest", func() bool { return len(third.received.All()) >= len(rest) })
	story.Compare(asRead(third.received.All()), asRead(rest))
	Equal("metadata", committed()[0].Metadata, "half")
	Must(third.Close())
	story.Ok("resume")

	administer()
}

func readAt(partition int, position func(*kafka.Reader) error) Record {
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{story.Bootstrap}, Topic: story.Topic, Partition: partition, MaxWait: 200 * time.Millisecond})
	defer reader.Close()
	Must(position(reader))
	soon, cancel := context.WithTimeout(always, Deadline)
	defer cancel()
	return taken(Got(reader.ReadMessage(soon)))
}

func administer() {
	wanted := story.Expected[1][len(story.Expected[1])/2]
	at := time.UnixMilli(wanted.Timestamp - 500)
	found := offsets(func(partition int) kafka.OffsetRequest { return kafka.TimeOffsetOf(partition, at) })[1]
	Equal("offsets of a time", len(found.Offsets), 1)
	for offset := range found.Offsets {
		Equal("offset of a time", offset, wanted.Offset)
	}
	got := readAt(1, func(reader *kafka.Reader) error { return reader.SetOffsetAt(always, at) })
	Check(got.Same(wanted), "at a time: got %v, want %v", got, wanted)
	story.Ok("seek")

	altered := Got(client.IncrementalAlterConfigs(always, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: story.Topic,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "123456789", ConfigOperation: kafka.ConfigOperationSet}},
	}}}))
	Must(altered.Resources[0].Error)
	Until("the altered config reads back", func() bool {
		answer := Got(client.DescribeConfigs(always, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: story.Topic, ConfigNames: []string{"retention.ms"},
		}}}))
		Must(answer.Resources[0].Error)
		entries := answer.Resources[0].ConfigEntries
		Equal("described configs", len(entries), 1)
		return entries[0].ConfigValue == "123456789"
	})
	story.Ok("config")

	story.Unsupported("trim", "kafka-go has no call to delete records")

	deletedGroup := Got(client.DeleteGroups(always, &kafka.DeleteGroupsRequest{GroupIDs: []string{story.Group}}))
	Must(deletedGroup.Errors[story.Group])
	Check(!groupListed(), "the group is still listed")
	deleted := Got(client.DeleteTopics(always, &kafka.DeleteTopicsRequest{Topics: []string{story.Topic}}))
	Must(deleted.Errors[story.Topic])
	Until("the topic is gone from the list", func() bool { return !listed() })
	story.Ok("delete")
}
