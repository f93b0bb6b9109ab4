import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Scanner;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.LogTruncationException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Apache Kafka's own Java client over a log that is cut below its consumer; what it prints is described in the README here. */
public class Truncation {
  static final TopicPartition PARTITION = new TopicPartition(System.getenv("TOPIC"), 0);
  static final long PATIENCE_NANOS = TimeUnit.SECONDS.toNanos(Long.parseLong(System.getenv("PATIENCE")));
  static final Map<String, Object> CONNECTION =
      Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"), "metadata.max.age.ms", 1000);

  static KafkaProducer<String, String> producer;
  static KafkaConsumer<String, String> consumer;

  static void produce(int first, int count) throws Exception {
    for (int value = first; value < first + count; value++) {
      producer.send(new ProducerRecord<>(PARTITION.topic(), 0, null, "" + value)).get(30, TimeUnit.SECONDS);
    }
  }

  static void read(int count) {
    long began = System.nanoTime();
    List<String> read = new ArrayList<>();
    while (read.size() < count) {
      if (System.nanoTime() - began > PATIENCE_NANOS) {
        throw new IllegalStateException("only " + read + " can be read");
      }
      consumer.poll(Duration.ofMillis(100)).forEach(record -> read.add(record.offset() + "=" + record.value()));
    }
    System.out.println("read " + String.join(" ", read));
  }

  public static void main(String[] arguments) throws Exception {
    try (Admin admin = Admin.create(CONNECTION)) {
      var topic = new NewTopic(PARTITION.topic(), 1, (short) 1).configs(Map.of("weir.durability", "memory"));
      admin.createTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
    }
    var config = new java.util.HashMap<>(CONNECTION);
    config.put("auto.offset.reset", "none");
    config.put("enable.auto.commit", false);
    producer = new KafkaProducer<>(CONNECTION, new StringSerializer(), new StringSerializer());
    consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    consumer.assign(List.of(PARTITION));
    consumer.seek(PARTITION, 0);
    produce(0, 3);
    read(3);
    Scanner input = new Scanner(System.in);
    input.nextLine();
    produce(3, 4);
    read(4);
    input.nextLine();
    long began = System.nanoTime();
    while (System.nanoTime() - began < PATIENCE_NANOS) {
      try {
        consumer.poll(Duration.ofMillis(100)).forEach(record -> System.out.println("unexpected " + record));
      } catch (LogTruncationException truncated) {
        var divergent = truncated.divergentOffsets().get(PARTITION);
        System.out.println("truncated at " + divergent.offset() + ", read up to " + truncated.offsetOutOfRangePartitions().get(PARTITION));
        consumer.seek(PARTITION, divergent.offset());
        produce(7, 2);
        read(2);
        System.exit(0);
      }
    }
    System.out.println("nothing was told");
    System.exit(1);
  }
}
