import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads the numbered records of tests/archive/proof back with Apache Kafka's own client (tests/archive/README.md says what each is). */
public class Archive {
  static final Duration STALLED = Duration.ofSeconds(120);
  static final String TOPIC = System.getenv("TOPIC");
  static final int PARTITIONS = (int) number("PARTITIONS");

  /** In each partition. */
  static final long RECORDS = number("RECORDS");

  static final long START = number("START");

  /** Offsets below it are archived, in each partition. */
  static final long COLD = number("COLD");

  static long number(String name) {
    return Long.parseLong(System.getenv(name));
  }

  static void check(boolean condition, String message) {
    if (!condition) {
      throw new AssertionError(message);
    }
  }

  static long mix(long seed) {
    long mixed = seed + 0x9E3779B97F4A7C15L;
    mixed = (mixed ^ mixed >>> 30) * 0xBF58476D1CE4E5B9L;
    mixed = (mixed ^ mixed >>> 27) * 0x94D049BB133111EBL;
    return mixed ^ mixed >>> 31;
  }

  static long seed(int partition, long offset) {
    return mix((long) partition << 40 | offset);
  }

  static long timestamp(long seed, long offset) {
    return START + offset * 10 - (offset % 11 == 0 ? (seed >>> 5 & 0xffff) % 50 : 0);
  }

  /** Adds the last `digits` decimal digits of a number, zeros and all. */
  static StringBuilder digits(StringBuilder text, long number, int digits) {
    String shown = Long.toString(number);
    return text.append("0".repeat(Math.max(0, digits - shown.length()))).append(shown);
  }

  static byte[] key(long seed, long offset) {
    if (offset % 8 == 7) {
      return null;
    }
    return offset % 64 == 12 ? new byte[0] : bytes(digits(new StringBuilder("cust-"), customer(seed), 5));
  }

  static long customer(long seed) {
    return (seed >>> 16 & 0xffff) % 20_000;
  }

  static byte[] bytes(StringBuilder text) {
    return text.toString().getBytes(StandardCharsets.UTF_8);
  }

  static byte[] value(int partition, long seed, long offset) {
    long cents = (seed >>> 32 & 0xffff) % 99_900;
    StringBuilder text = new StringBuilder();
    switch ((int) (offset % 16)) {
      case 11 -> text.append("{\"order_id\": \"ord-").append(partition).append('-').append(offset)
          .append("\", \"tags\": [\"a\", \"b\"], \"total\": ").append(cents).append('}');
      case 12 -> {
        byte[] data = new byte[(int) (seed >>> 24 & 0xff)];
        for (int at = 0; at < data.length; at++) {
          data[at] = (byte) (mix(seed + at / 8) >>> 8 * (at % 8));
        }
        return data;
      }
      case 13 -> {
        return null;
      }
      case 14 -> {
        return new byte[0];
      }
      case 15 -> {
        text.append("{\"order_id\":\"ord-").append(partition).append('-').append(offset).append("\",\"text\":\"");
        for (int at = 0; at < (seed >>> 56 & 7); at++) {
          String shown = Long.toHexString(mix(seed + at));
          text.append("0".repeat(16 - shown.length())).append(shown);
        }
        text.append("\"}");
      }
      default -> {
        text.append("{\"order_id\":\"ord-").append(partition).append('-').append(offset).append("\",\"customer_id\":\"cust-");
        digits(text, customer(seed), 5).append("\",\"quantity\":").append(1 + (seed >>> 8 & 7)).append(",\"total\":");
        digits(text.append(cents / 100).append('.'), cents % 100, 2).append(",\"status\":\"paid\",\"note\":null}");
      }
    }
    return bytes(text);
  }

  static List<Header> headers(long seed, long offset) {
    List<Header> headers = new ArrayList<>();
    if (offset % 5 == 0) {
      headers.add(new RecordHeader("trace", ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(seed).array()));
    }
    if (offset % 10 == 0) {
      headers.add(new RecordHeader("trace", (byte[]) null));
    }
    if (offset % 20 == 0) {
      headers.add(new RecordHeader("", new byte[0]));
    }
    return headers;
  }

  static void check(ConsumerRecord<byte[], byte[]> got, int partition, long offset) {
    check(
        got.partition() == partition && got.offset() == offset,
        got.partition() + "/" + got.offset() + " instead of " + partition + "/" + offset + ": lost, doubled or out of order");
    long seed = seed(partition, offset);
    check(
        got.timestamp() == timestamp(seed, offset)
            && Arrays.equals(got.key(), key(seed, offset))
            && Arrays.equals(got.value(), value(partition, seed, offset))
            && Arrays.asList(got.headers().toArray()).equals(headers(seed, offset)),
        "this is not what was sent: " + got + Arrays.toString(got.value()));
  }

  static KafkaConsumer<byte[], byte[]> consumer(Map<Integer, Long> offsets) {
    Map<String, Object> config = Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"), "auto.offset.reset", "none");
    var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    consumer.assign(offsets.keySet().stream().map(partition -> new TopicPartition(TOPIC, partition)).toList());
    offsets.forEach((partition, offset) -> consumer.seek(new TopicPartition(TOPIC, partition), offset));
    return consumer;
  }

  static void read() {
    long[] next = new long[PARTITIONS];
    Map<Integer, Long> offsets = new java.util.HashMap<>();
    IntStream.range(0, PARTITIONS).forEach(partition -> offsets.put(partition, 0L));
    try (var consumer = consumer(offsets)) {
      for (long left = RECORDS * PARTITIONS; left > 0; ) {
        var got = consumer.poll(STALLED);
        check(!got.isEmpty(), "nothing comes any more, " + left + " records are missing");
        for (var record : got) {
          check(record, record.partition(), next[record.partition()]++);
          left--;
        }
      }
    }
    check(Arrays.stream(next).allMatch(offset -> offset == RECORDS), "too many records: " + Arrays.toString(next));
  }

  /** As `read`, by a group: a second member joins after a third of the records, and the first one leaves after two. */
  static void group() {
    long[] next = new long[PARTITIONS];
    long all = RECORDS * PARTITIONS, left = all, last = System.nanoTime();
    List<KafkaConsumer<byte[], byte[]>> members = new ArrayList<>(List.of(member()));
    for (int joined = 1; left > 0; ) {
      for (var member : members) {
        var got = member.poll(Duration.ofMillis(100));
        for (var record : got) {
          check(record, record.partition(), next[record.partition()]++);
          left--;
        }
        if (!got.isEmpty()) {
          member.commitAsync();
          last = System.nanoTime();
        }
      }
      check(System.nanoTime() - last < STALLED.toNanos(), "nothing comes any more, " + left + " records are missing");
      if (joined == 1 && left < all / 3 * 2) {
        members.add(member());
        joined++;
      } else if (members.size() == 2 && left < all / 3) {
        members.remove(0).close();
      }
    }
    check(Arrays.stream(next).allMatch(offset -> offset == RECORDS), "too many records: " + Arrays.toString(next));
    var partitions = IntStream.range(0, PARTITIONS).mapToObj(partition -> new TopicPartition(TOPIC, partition));
    members.forEach(KafkaConsumer::close);
    try (var heir = member()) {
      heir.committed(new java.util.HashSet<>(partitions.toList())).forEach(
          (where, committed) -> check(committed != null && committed.offset() == RECORDS, where + " is committed up to " + committed));
    }
  }

  /** Of the group; whatever it has read is committed before somebody else gets the partition. */
  static KafkaConsumer<byte[], byte[]> member() {
    Map<String, Object> config =
        Map.of(
            "bootstrap.servers", System.getenv("BOOTSTRAP"),
            "group.id", "java-archive",
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false");
    var member = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    member.subscribe(
        List.of(TOPIC),
        new ConsumerRebalanceListener() {
          @Override
          public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}

          @Override
          public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            member.commitSync();
          }
        });
    return member;
  }

  static void seek() {
    for (int partition = 0; partition < PARTITIONS; partition++) {
      var where = new TopicPartition(TOPIC, partition);
      for (int step = 0; step < 8; step++) {
        long time = START + COLD * step / 8 * 10 - 3;
        long offset = (Math.max(time - START, 0) + 9) / 10;
        if (timestamp(seed(partition, offset), offset) < time) {
          offset++;
        }
        try (var consumer = consumer(Map.of(partition, offset))) {
          var found = consumer.offsetsForTimes(Map.of(where, time), STALLED).get(where);
          check(found != null && found.offset() == offset, "partition " + partition + " at " + time + ": " + found + " instead of " + offset);
          check(consumer.poll(STALLED).iterator().next(), partition, offset);
        }
      }
    }
  }

  public static void main(String[] arguments) {
    long begun = System.nanoTime();
    switch (arguments[0]) {
      case "read" -> read();
      case "group" -> group();
      case "seek" -> seek();
      default -> throw new IllegalArgumentException(arguments[0]);
    }
    System.out.printf("ok %s %.1f%n", arguments[0], (System.nanoTime() - begun) / 1e9);
    System.exit(0);
  }
}
