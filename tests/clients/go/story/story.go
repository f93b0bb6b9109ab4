// Package story is what the Go clients' stories share: the records, what must come back, and how a step is told.
package story

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// Deadline bounds everything that a story waits for.
const Deadline = 60 * time.Second

// Header is a record header; a nil value is null.
type Header struct {
	Name  string
	Value []byte
}

// Record is what is produced and must come back; a nil key or value is null.
type Record struct {
	Partition  int32
	Offset     int64
	Timestamp  int64 // milliseconds
	Key, Value []byte
	Headers    []Header
}

func short(data []byte) string {
	if data == nil {
		return "null"
	}
	if len(data) > 60 {
		return fmt.Sprintf("%q… (%d bytes)", data[:60], len(data))
	}
	return fmt.Sprintf("%q", data)
}

func (r Record) String() string {
	text := fmt.Sprintf("%d/%d at %d: %s = %s", r.Partition, r.Offset, r.Timestamp, short(r.Key), short(r.Value))
	for _, header := range r.Headers {
		text += fmt.Sprintf(", %q: %s", header.Name, short(header.Value))
	}
	return text
}

func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func sameHeader(a, b Header) bool { return a.Name == b.Name && sameBytes(a.Value, b.Value) }

// Same compares every byte; null is not empty.
func (r Record) Same(other Record) bool {
	return r.Partition == other.Partition && r.Offset == other.Offset && r.Timestamp == other.Timestamp &&
		sameBytes(r.Key, other.Key) && sameBytes(r.Value, other.Value) && slices.EqualFunc(r.Headers, other.Headers, sameHeader)
}

// Story is one client's run of the story.
type Story struct {
	Client, Bootstrap, Topic, Group string
	RefusesTransactions             bool
	Partitions                      int32
	Expected                        [][]Record // by partition
	start                           int64
	given                           []Record
	produced                        int64
}

// New reads the records; `refused` names those that this client's library cannot express.
func New(client string, refused func(Record) bool) *Story {
	var file struct {
		Partitions int32
		Start      int64
		Records    []struct {
			Key, Value []byte
			Headers    [][2]*json.RawMessage
		}
	}
	text, err := os.ReadFile(os.Getenv("RECORDS"))
	Must(err)
	Must(json.Unmarshal(text, &file))
	_, refuses := os.LookupEnv("TRANSACTIONS_REFUSED")
	topic := fmt.Sprintf("%s-%s-%s", client, os.Getenv("LAYOUT"), os.Getenv("RUN"))
	s := &Story{
		Client: client, Bootstrap: os.Getenv("BOOTSTRAP"), Topic: topic, Group: topic + "-group",
		RefusesTransactions: refuses, Partitions: file.Partitions, Expected: make([][]Record, file.Partitions), start: file.Start,
	}
	for _, r := range file.Records {
		record := Record{Key: r.Key, Value: r.Value}
		for _, pair := range r.Headers {
			var header Header
			Must(json.Unmarshal(*pair[0], &header.Name))
			if pair[1] != nil {
				Must(json.Unmarshal(*pair[1], &header.Value))
			}
			record.Headers = append(record.Headers, header)
		}
		if !refused(record) {
			s.given = append(s.given, record)
		}
	}
	return s
}

// Round is the next records to produce, each with the partition and the offset that it must get; 0 means all.
func (s *Story) Round(count int) []Record {
	if count == 0 {
		count = len(s.given)
	}
	records := slices.Clone(s.given[:count])
	for i := range records {
		record := &records[i]
		record.Partition = int32(s.produced % int64(s.Partitions))
		record.Offset = int64(len(s.Expected[record.Partition]))
		record.Timestamp = s.start + 1000*s.produced
		s.produced++
		s.Expected[record.Partition] = append(s.Expected[record.Partition], *record)
	}
	return records
}

// Everything that was produced, partition by partition.
func (s *Story) Everything() []Record { return slices.Concat(s.Expected...) }

// Middle is half of each partition's end.
func (s *Story) Middle() map[int32]int64 {
	middle := map[int32]int64{}
	for partition, records := range s.Expected {
		middle[int32(partition)] = int64(len(records) / 2)
	}
	return middle
}

// From is what lies at or after the given offsets.
func (s *Story) From(offsets map[int32]int64) []Record {
	return slices.DeleteFunc(s.Everything(), func(r Record) bool { return r.Offset < offsets[r.Partition] })
}

// Compare demands that each expected record came once, in order within its partition, byte for byte.
func (s *Story) Compare(got, expected []Record) {
	for partition := range s.Partitions {
		elsewhere := func(r Record) bool { return r.Partition != partition }
		here := slices.DeleteFunc(slices.Clone(got), elsewhere)
		wanted := slices.DeleteFunc(slices.Clone(expected), elsewhere)
		for i := range min(len(here), len(wanted)) {
			Check(here[i].Same(wanted[i]), "got  %v\nwant %v", here[i], wanted[i])
		}
		Equal(fmt.Sprintf("records of partition %d", partition), len(here), len(wanted))
	}
}

// Ok tells that a step is done.
func (s *Story) Ok(step string) { fmt.Printf("ok %s %s\n", s.Client, step) }

// Unsupported tells that the client's library has no such call.
func (s *Story) Unsupported(step, why string) {
	fmt.Printf("unsupported %s %s: %s\n", s.Client, step, why)
}

// Check ends the program with one message unless the condition holds.
func Check(condition bool, format string, arguments ...any) {
	if !condition {
		fmt.Printf(format+"\n", arguments...)
		os.Exit(1)
	}
}

// Must ends the program on an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Got is the value of a call that must succeed.
func Got[T any](value T, err error) T {
	Must(err)
	return value
}

// Equal demands two equal values.
func Equal[T comparable](what string, got, want T) {
	Check(got == want, "%s: got %v, want %v", what, got, want)
}

// Until asks again until the answer is true: for what a broker does in its own time.
func Until(what string, attempt func() bool) {
	for end := time.Now().Add(Deadline); !attempt(); time.Sleep(20 * time.Millisecond) {
		Check(time.Now().Before(end), "not within %v: %s", Deadline, what)
	}
}

// Received collects records from several goroutines.
type Received struct {
	mutex   sync.Mutex
	records []Record
}

// Add one record.
func (r *Received) Add(record Record) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.records = append(r.records, record)
}

// Clear forgets what was read: a new assignment starts at what was committed.
func (r *Received) Clear() {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.records = nil
}

// All that was received so far.
func (r *Received) All() []Record {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return slices.Clone(r.records)
}
