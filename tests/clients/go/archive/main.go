// Reads the numbered records of tests/archive/proof back with franz-go (tests/archive/README.md says what each is).
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	. "weir/tests/clients/story"
)

const stalled = 120 * time.Second

var (
	topic      = os.Getenv("TOPIC")
	partitions = int32(number("PARTITIONS"))
	records    = number("RECORDS") // in each partition
	start      = number("START")
	cold       = number("COLD") // offsets below it are archived, in each partition
)

func number(name string) int64 { return Got(strconv.ParseInt(os.Getenv(name), 10, 64)) }

func mix(seed uint64) uint64 {
	mixed := seed + 0x9E3779B97F4A7C15
	mixed = (mixed ^ mixed>>30) * 0xBF58476D1CE4E5B9
	mixed = (mixed ^ mixed>>27) * 0x94D049BB133111EB
	return mixed ^ mixed>>31
}

func seedOf(partition int32, offset int64) uint64 { return mix(uint64(partition)<<40 | uint64(offset)) }

func timestamp(seed uint64, offset int64) int64 {
	at := start + offset*10
	if offset%11 == 0 {
		at -= int64((seed >> 5 & 0xffff) % 50)
	}
	return at
}

func numbered(partition int32, offset int64) Record {
	seed := seedOf(partition, offset)
	customer, cents := (seed>>16&0xffff)%20_000, (seed>>32&0xffff)%99_900
	record := Record{Partition: partition, Offset: offset, Timestamp: timestamp(seed, offset)}
	switch {
	case offset%8 == 7:
	case offset%64 == 12:
		record.Key = []byte{}
	default:
		record.Key = fmt.Appendf(nil, "cust-%05d", customer)
	}
	switch offset % 16 {
	case 11:
		record.Value = fmt.Appendf(nil, `{"order_id": "ord-%d-%d", "tags": ["a", "b"], "total": %d}`, partition, offset, cents)
	case 12:
		record.Value = []byte{}
		for at := range seed >> 24 & 0xff {
			record.Value = append(record.Value, byte(mix(seed+at/8)>>(8*(at%8))))
		}
	case 13:
	case 14:
		record.Value = []byte{}
	case 15:
		var text []byte
		for at := range seed >> 56 & 7 {
			text = fmt.Appendf(text, "%016x", mix(seed+at))
		}
		record.Value = fmt.Appendf(nil, `{"order_id":"ord-%d-%d","text":"%s"}`, partition, offset, text)
	default:
		record.Value = fmt.Appendf(nil, `{"order_id":"ord-%d-%d","customer_id":"cust-%05d","quantity":%d,"total":%d.%02d,"status":"paid","note":null}`,
			partition, offset, customer, 1+(seed>>8&7), cents/100, cents%100)
	}
	if offset%5 == 0 {
		record.Headers = append(record.Headers, Header{Name: "trace", Value: binary.LittleEndian.AppendUint64(nil, seed)})
	}
	if offset%10 == 0 {
		record.Headers = append(record.Headers, Header{Name: "trace"})
	}
	if offset%20 == 0 {
		record.Headers = append(record.Headers, Header{Name: "", Value: []byte{}})
	}
	return record
}

func taken(record *kgo.Record) Record {
	got := Record{Partition: record.Partition, Offset: record.Offset, Timestamp: record.Timestamp.UnixMilli(), Key: record.Key, Value: record.Value}
	for _, header := range record.Headers {
		got.Headers = append(got.Headers, Header{Name: header.Key, Value: header.Value})
	}
	return got
}

func check(record *kgo.Record, partition int32, offset int64) {
	got := taken(record)
	Check(got.Partition == partition && got.Offset == offset, "%d/%d instead of %d/%d: lost, doubled or out of order", got.Partition, got.Offset, partition, offset)
	wanted := numbered(partition, offset)
	Check(got.Same(wanted), "%v instead of %v", got, wanted)
}

func client(offsets map[int32]int64) *kgo.Client {
	assigned := map[int32]kgo.Offset{}
	for partition, offset := range offsets {
		assigned[partition] = kgo.NewOffset().At(offset)
	}
	return Got(kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("BOOTSTRAP")), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned}),
	))
}

func poll(from *kgo.Client, left int64) kgo.Fetches {
	soon, cancel := context.WithTimeout(context.Background(), stalled)
	defer cancel()
	fetches := from.PollFetches(soon)
	fetches.EachError(func(_ string, partition int32, err error) {
		Check(false, "partition %d, %d records are missing: %v", partition, left, err)
	})
	return fetches
}

func read() {
	next := map[int32]int64{}
	for partition := range partitions {
		next[partition] = 0
	}
	reader := client(next)
	defer reader.Close()
	for left := records * int64(partitions); left > 0; {
		poll(reader, left).EachRecord(func(record *kgo.Record) {
			check(record, record.Partition, next[record.Partition])
			next[record.Partition]++
			left--
		})
	}
	for partition, offset := range next {
		Equal(fmt.Sprintf("partition %d", partition), offset, records)
	}
}

func seek() {
	for partition := range partitions {
		for step := range int64(8) {
			time := start + cold*step/8*10 - 3
			offset := (max(time-start, 0) + 9) / 10
			if timestamp(seedOf(partition, offset), offset) < time {
				offset++
			}
			reader := client(map[int32]int64{partition: offset})
			listed := Got(kadm.NewClient(reader).ListOffsetsAfterMilli(context.Background(), time, topic))
			found, _ := listed.Lookup(topic, partition)
			Must(found.Err)
			Equal(fmt.Sprintf("partition %d at %d", partition, time), found.Offset, offset)
			var first *kgo.Record
			for first == nil {
				if got := poll(reader, 1).Records(); len(got) > 0 {
					first = got[0]
				}
			}
			check(first, partition, offset)
			reader.Close()
		}
	}
}

func main() {
	begun := time.Now()
	switch os.Args[1] {
	case "read":
		read()
	case "seek":
		seek()
	default:
		Check(false, "no mode %s", os.Args[1])
	}
	fmt.Printf("ok %s %.1f\n", os.Args[1], time.Since(begun).Seconds())
}
