import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TransactionalIdAuthorizationException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The story told by Apache Kafka's own Java client, with cooperative rebalances and the idempotent producer, its default. */
public class Story {
  static final long DEADLINE_SECONDS = 60;
  static final String TOPIC = "java-" + System.getenv("LAYOUT") + "-" + System.getenv("RUN");
  static final String GROUP = TOPIC + "-group";

  /** A null key, value or header value stays null; equality compares every byte. */
  record Stored(int partition, long offset, long timestamp, byte[] key, byte[] value, List<Header> headers) {
    @Override
    public boolean equals(Object other) {
      return other instanceof Stored that
          && partition == that.partition
          && offset == that.offset
          && timestamp == that.timestamp
          && Arrays.equals(key, that.key)
          && Arrays.equals(value, that.value)
          && headers.size() == that.headers.size()
          && IntStream.range(0, headers.size())
              .allMatch(
                  i ->
                      headers.get(i).key().equals(that.headers.get(i).key())
                          && Arrays.equals(headers.get(i).value(), that.headers.get(i).value()));
    }

    @Override
    public int hashCode() {
      return Objects.hash(partition, offset);
    }

    private static String text(byte[] data) {
      return data == null ? "null" : "'" + new String(data, 0, Math.min(60, data.length)) + "' (" + data.length + " bytes)";
    }

    @Override
    public String toString() {
      String named = headers.stream().map(h -> h.key() + ": " + text(h.value())).collect(Collectors.joining(", "));
      return partition + "/" + offset + " at " + timestamp + ": " + text(key) + " = " + text(value) + ", " + named;
    }
  }

  final Map<String, Object> connection = Map.of("bootstrap.servers", System.getenv("BOOTSTRAP"));
  final Admin admin = Admin.create(connection);
  final JsonNode given;
  final int partitions;
  final List<List<Stored>> expected = new ArrayList<>();
  int produced;

  Story() throws Exception {
    given = new ObjectMapper().readTree(new File(System.getenv("RECORDS")));
    partitions = given.get("partitions").asInt();
    for (int partition = 0; partition < partitions; partition++) {
      expected.add(new ArrayList<>());
    }
  }

  static void check(boolean condition, String message) {
    if (!condition) {
      throw new AssertionError(message);
    }
  }

  static void equal(String what, Object got, Object want) {
    check(Objects.equals(got, want), what + ": got " + got + ", want " + want);
  }

  static void ok(String step) {
    System.out.println("ok java " + step);
  }

  static <T> T get(Future<T> future) throws Exception {
    return future.get(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  static <T> T get(KafkaFuture<T> future) throws Exception {
    return future.get(DEADLINE_SECONDS, TimeUnit.SECONDS);
  }

  interface Attempt {
    boolean done() throws Exception;
  }

  /** Asks again until the answer is true: for what a broker does in its own time. */
  static void until(String what, Attempt attempt) throws Exception {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(DEADLINE_SECONDS);
    while (!attempt.done()) {
      check(System.nanoTime() < deadline, "not within " + DEADLINE_SECONDS + " s: " + what);
      Thread.sleep(10);
    }
  }

  static byte[] decode(JsonNode text) {
    return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
  }

  TopicPartition at(int partition) {
    return new TopicPartition(TOPIC, partition);
  }

  /** The next records to produce, each with the partition and the offset that it must get. */
  List<Stored> round(int count) {
    List<Stored> records = new ArrayList<>();
    for (JsonNode record : given.get("records")) {
      if (records.size() == count) {
        break;
      }
      List<Header> headers = new ArrayList<>();
      record.get("headers").forEach(pair -> headers.add(new RecordHeader(pair.get(0).asText(), decode(pair.get(1)))));
      int partition = produced % partitions;
      List<Stored> log = expected.get(partition);
      long timestamp = given.get("start").asLong() + 1000L * produced;
      Stored stored = new Stored(partition, log.size(), timestamp, decode(record.get("key")), decode(record.get("value")), headers);
      produced++;
      log.add(stored);
      records.add(stored);
    }
    return records;
  }

  List<Stored> everything() {
    return expected.stream().flatMap(List::stream).toList();
  }

  Map<Integer, Long> ends() {
    return IntStream.range(0, partitions).boxed().collect(Collectors.toMap(p -> p, p -> (long) expected.get(p).size()));
  }

  /** Each expected record came once, in order within its partition, byte for byte. */
  void compare(List<Stored> got, List<Stored> wanted) {
    for (int partition = 0; partition < partitions; partition++) {
      int here = partition;
      List<Stored> of = got.stream().filter(record -> record.partition == here).toList();
      List<Stored> want = wanted.stream().filter(record -> record.partition == here).toList();
      for (int i = 0; i < Math.min(of.size(), want.size()); i++) {
        check(of.get(i).equals(want.get(i)), "got  " + of.get(i) + "\nwant " + want.get(i));
      }
      equal("records of partition " + partition, of.size(), want.size());
    }
  }

  void produce(List<Stored> records, String codec) throws Exception {
    Map<String, Object> config = new HashMap<>(connection);
    config.put("compression.type", codec);
    config.put("linger.ms", 20);
    try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
      List<Future<RecordMetadata>> sent = new ArrayList<>();
      for (Stored r : records) {
        sent.add(producer.send(new ProducerRecord<>(TOPIC, r.partition, r.timestamp, r.key, r.value, r.headers)));
      }
      for (int i = 0; i < records.size(); i++) {
        RecordMetadata answer = get(sent.get(i));
        equal("acknowledged", answer.partition() + "/" + answer.offset(), records.get(i).partition + "/" + records.get(i).offset);
      }
    }
  }

  /** A member of the group that collects what it reads; what it read of a partition that it loses does not count. */
  class Member implements ConsumerRebalanceListener, AutoCloseable {
    final KafkaConsumer<byte[], byte[]> consumer;
    final List<Stored> records = new ArrayList<>();

    Member() {
      Map<String, Object> config = new HashMap<>(connection);
      config.put("group.id", GROUP);
      config.put("auto.offset.reset", "earliest");
      config.put("enable.auto.commit", false);
      config.put("session.timeout.ms", 6000);
      config.put("heartbeat.interval.ms", 300);
      config.put("fetch.max.wait.ms", 200);
      config.put("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
      consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    Member join() {
      consumer.subscribe(List.of(TOPIC), this);
      return this;
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> assigned) {}

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
      records.removeIf(record -> revoked.contains(at(record.partition)));
    }

    void read() {
      for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(50))) {
        records.add(new Stored(r.partition(), r.offset(), r.timestamp(), r.key(), r.value(), List.of(r.headers().toArray())));
      }
    }

    List<Stored> poll(int count) throws Exception {
      until(
          count + " records",
          () -> {
            read();
            return records.size() >= count;
          });
      return records;
    }

    Stored readAt(int partition, long offset) throws Exception {
      consumer.assign(List.of(at(partition)));
      consumer.seek(at(partition), offset);
      return poll(1).get(0);
    }

    Set<Integer> held() {
      return consumer.assignment().stream().map(TopicPartition::partition).collect(Collectors.toSet());
    }

    @Override
    public void close() {
      consumer.close();
    }
  }

  Map<Integer, Long> offsets(OffsetSpec specification) throws Exception {
    Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
    IntStream.range(0, partitions).forEach(partition -> asked.put(at(partition), specification));
    Map<Integer, Long> found = new HashMap<>();
    get(admin.listOffsets(asked).all()).forEach((partition, answer) -> found.put(partition.partition(), answer.offset()));
    return found;
  }

  Map<Integer, Long> committed() throws Exception {
    Map<Integer, Long> found = new HashMap<>();
    get(admin.listConsumerGroupOffsets(GROUP).partitionsToOffsetAndMetadata())
        .forEach((partition, offset) -> found.put(partition.partition(), offset.offset()));
    return found;
  }

  boolean groupListed() throws Exception {
    return get(admin.listGroups().all()).stream().anyMatch(listing -> listing.groupId().equals(GROUP));
  }

  void create() throws Exception {
    get(admin.createTopics(List.of(new NewTopic(TOPIC, partitions, (short) 1).configs(Map.of("cleanup.policy", "delete")))).all());
    ok("create");
    until("the topic in the list", () -> get(admin.listTopics().names()).contains(TOPIC));
    var described = get(admin.describeTopics(List.of(TOPIC)).allTopicNames()).get(TOPIC);
    equal("partitions", described.partitions().size(), partitions);
    check(described.partitions().stream().allMatch(partition -> partition.leader() != null), "a partition has no leader");
    var cluster = admin.describeCluster();
    check(get(cluster.nodes()).size() == 1 && !get(cluster.clusterId()).isEmpty(), "the cluster's description");
    ok("list");
  }

  void consume() throws Exception {
    for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
      produce(round(-1), codec);
    }
    equal("ends", offsets(OffsetSpec.latest()), ends());
    equal("last time", offsets(OffsetSpec.maxTimestamp()), offsets(OffsetSpec.latest()).entrySet().stream()
        .collect(Collectors.toMap(Map.Entry::getKey, end -> end.getValue() - 1)));
    ok("produce");

    // Two members share the partitions.
    Member first = new Member().join();
    try (Member second = new Member().join()) {
      until(
          "both members have partitions, and together every record",
          () -> {
            first.read();
            second.read();
            return !first.held().isEmpty()
                && !second.held().isEmpty()
                && first.held().size() + second.held().size() == partitions
                && first.records.size() + second.records.size() >= produced;
          });
      List<Stored> got = new ArrayList<>(first.records);
      got.addAll(second.records);
      compare(got, everything());
      for (Member member : List.of(first, second)) {
        equal("partitions read", member.records.stream().map(Stored::partition).collect(Collectors.toSet()), member.held());
        member.consumer.commitSync();
      }
      ok("consume");

      // One member leaves.
      first.close();
      until(
          "the other member has every partition",
          () -> {
            second.read();
            return second.held().size() == partitions;
          });
      second.records.clear();
      List<Stored> more = round(6);
      produce(more, "none");
      compare(second.poll(more.size()), more);
      second.consumer.commitSync();
      ok("takeover");

      // While a member is there.
      var group = get(admin.describeConsumerGroups(List.of(GROUP)).all()).get(GROUP);
      equal("state", group.groupState(), GroupState.STABLE);
      equal("members", group.members().size(), 1);
      equal("assigned", group.members().iterator().next().assignment().topicPartitions().size(), partitions);
      check(groupListed(), "the group is not listed");
      equal("committed", committed(), ends());
      ok("groups");

      Map<TopicPartition, OffsetAndMetadata> half = new HashMap<>();
      ends().forEach((partition, end) -> half.put(at(partition), new OffsetAndMetadata(end / 2, "half")));
      second.consumer.commitSync(half);
    }
    try (Member third = new Member().join()) {
      List<Stored> rest =
          everything().stream().filter(record -> record.offset >= expected.get(record.partition).size() / 2).toList();
      compare(third.poll(rest.size()), rest);
      equal("metadata", third.consumer.committed(Set.of(at(0))).get(at(0)).metadata(), "half");
    }
    ok("resume");
  }

  void administer() throws Exception {
    Stored wanted = expected.get(1).get(expected.get(1).size() / 2);
    try (Member reader = new Member()) {
      var found = reader.consumer.offsetsForTimes(Map.of(at(1), wanted.timestamp - 500)).get(at(1));
      equal("offset of a time", found.offset(), wanted.offset);
      equal("time of that offset", found.timestamp(), wanted.timestamp);
      equal("after the last time", reader.consumer.offsetsForTimes(Map.of(at(1), wanted.timestamp + 1_000_000_000)).get(at(1)), null);
      equal("record at a time", reader.readAt(1, found.offset()), wanted);
    }
    ok("seek");

    var resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
    var set = new AlterConfigOp(new ConfigEntry("retention.ms", "123456789"), AlterConfigOp.OpType.SET);
    get(admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all());
    until(
        "the altered config reads back",
        () -> {
          ConfigEntry entry = get(admin.describeConfigs(List.of(resource)).all()).get(resource).get("retention.ms");
          return entry.value().equals("123456789") && entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG;
        });
    ok("config");

    equal("log start", get(admin.deleteRecords(Map.of(at(0), RecordsToDelete.beforeOffset(5))).lowWatermarks().get(at(0))).lowWatermark(), 5L);
    equal("starts", offsets(OffsetSpec.earliest()), Map.of(0, 5L, 1, 0L, 2, 0L));
    try (Member reader = new Member()) {
      equal("record at the log start", reader.readAt(0, 5), expected.get(0).get(5));
    }
    ok("trim");

    get(admin.deleteConsumerGroups(List.of(GROUP)).all());
    check(!groupListed(), "the group is still listed");
    get(admin.deleteTopics(List.of(TOPIC)).all());
    until("the topic is gone from the list", () -> !get(admin.listTopics().names()).contains(TOPIC));
    ok("delete");
  }

  void transactions() {
    Map<String, Object> config = new HashMap<>(connection);
    config.put("transactional.id", GROUP);
    long started = System.nanoTime();
    try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
      producer.initTransactions();
      throw new AssertionError("initTransactions succeeded");
    } catch (TransactionalIdAuthorizationException refused) {
      check(System.nanoTime() - started < TimeUnit.SECONDS.toNanos(5), "refusing took more than 5 s");
    }
    ok("transactions");
  }

  public static void main(String[] arguments) throws Exception {
    Story story = new Story();
    story.create();
    story.consume();
    story.administer();
    if (System.getenv("TRANSACTIONS_REFUSED") != null) {
      story.transactions();
    }
    story.admin.close();
  }
}
