import java.time.Duration;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka's own Java client while brokers restart; what it prints is described in the README here. */
public class Rolling {
  static final String TOPIC = System.getenv("TOPIC");
  static final int PARTITIONS = Integer.parseInt(System.getenv("PARTITIONS"));
  static final long INTERVAL_NANOS = 1_000_000_000L / Integer.parseInt(System.getenv("RATE"));
  static final long PATIENCE_NANOS = TimeUnit.SECONDS.toNanos(Long.parseLong(System.getenv("PATIENCE")));
  static final Map<String, Object> CONNECTION = Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"));

  static final Set<String> delivered = ConcurrentHashMap.newKeySet();
  static final AtomicLong acknowledged = new AtomicLong();
  static volatile boolean ready;
  static volatile boolean produced;

  static synchronized void tell(String what) {
    System.out.println(System.currentTimeMillis() + " " + what.replace('\n', ' '));
  }

  static class Member extends Thread implements ConsumerRebalanceListener {
    final String name;
    volatile int held;

    Member(String name) {
      this.name = name;
    }

    void tell(String what, Collection<TopicPartition> partitions) {
      Rolling.tell(what + " " + name + " " + partitions.stream().map(p -> "" + p.partition()).sorted().collect(Collectors.joining(",")));
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
      tell("assigned", partitions);
      held = partitions.size();
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
      held = 0;
      tell("revoked", partitions);
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
      held = 0;
      tell("lost", partitions);
    }

    @Override
    public void run() {
      var config = new java.util.HashMap<>(CONNECTION);
      config.put("group.id", System.getenv("GROUP"));
      config.put("auto.offset.reset", "earliest");
      config.put("enable.auto.commit", false);
      config.put("fetch.max.wait.ms", 200);
      try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
        consumer.subscribe(List.of(TOPIC), this);
        long committed = System.nanoTime();
        while (!produced || delivered.size() < acknowledged.get()) {
          for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
            String sequence = new String(record.value()).split(":", 2)[0];
            Rolling.tell("read " + name + " " + record.partition() + " " + record.offset() + " " + sequence);
            delivered.add(record.partition() + "/" + record.offset());
          }
          if (ready && System.nanoTime() - committed > 300_000_000L) {
            consumer.commitSync();
            committed = System.nanoTime();
          }
        }
        consumer.commitSync();
        Rolling.tell("finished " + name);
      } catch (Exception error) {
        Rolling.tell("error " + name + " " + error);
        throw error;
      }
    }
  }

  static void produce() throws Exception {
    byte[] padding = new byte[100];
    Arrays.fill(padding, (byte) 'x');
    try (var producer = new KafkaProducer<>(CONNECTION, new ByteArraySerializer(), new ByteArraySerializer())) {
      long began = System.nanoTime();
      for (long next = 0; !finishing; next++) {
        long sequence = next;
        byte[] value = (sequence + ":" + new String(padding)).getBytes();
        producer.send(
            new ProducerRecord<>(TOPIC, (int) (sequence % PARTITIONS), null, value),
            (placed, error) -> {
              if (error != null) {
                tell("error producer " + sequence + " " + error);
              } else {
                acknowledged.incrementAndGet();
                tell("ack " + sequence + " " + placed.partition() + " " + placed.offset());
              }
            });
        TimeUnit.NANOSECONDS.sleep(began + (next + 1) * INTERVAL_NANOS - System.nanoTime());
      }
    }
  }

  static volatile boolean finishing;

  public static void main(String[] arguments) throws Exception {
    try (Admin admin = Admin.create(CONNECTION)) {
      admin.createTopics(List.of(new NewTopic(TOPIC, PARTITIONS, (short) 1))).all().get(30, TimeUnit.SECONDS);
    }
    List<Member> members = List.of(new Member("one"), new Member("two"));
    members.forEach(
        member -> {
          member.setDaemon(true);
          member.start();
        });
    while (members.stream().anyMatch(member -> member.held != PARTITIONS / 2)) {
      Thread.sleep(10);
    }
    tell("ready");
    ready = true;
    Thread input =
        new Thread(
            () -> {
              try {
                while (System.in.read() >= 0) {}
              } catch (java.io.IOException closed) {
                // The end as well.
              }
              finishing = true;
            });
    input.setDaemon(true);
    input.start();
    produce();
    tell("produced " + acknowledged.get());
    produced = true;
    long deadline = System.nanoTime() + PATIENCE_NANOS;
    for (Member member : members) {
      member.join(Math.max(1, TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime())));
    }
    if (members.stream().anyMatch(Thread::isAlive)) {
      tell("error members have read " + delivered.size() + " of " + acknowledged.get() + " records");
    }
    System.exit(0);
  }
}
