package packstream.bench;

import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.Stores;

/**
 * Counts ad events per (ad, day) with Kafka Streams, one thread, and prints its progress.
 *
 * <p>Arguments: brokers, topic, application id, state directory, guarantee, "dedupe" or "count", events to see.
 */
public final class AdCounts {
  private static final long PROGRESS_MS = 20;

  private AdCounts() {}

  public static void main(String[] arguments) throws InterruptedException {
    List<String> given = List.of(arguments);
    boolean dedupe = given.get(5).equals("dedupe");
    long wanted = Long.parseLong(given.get(6));
    Progress progress = new Progress();
    KafkaStreams streams =
        new KafkaStreams(topology(given.get(1), dedupe, progress), settings(given));
    streams.setUncaughtExceptionHandler(
        failure -> {
          failure.printStackTrace();
          Runtime.getRuntime().halt(1);
          return null;
        });
    streams.start();
    while (progress.print() < wanted) {
      Thread.sleep(PROGRESS_MS);
    }
    progress.end();
    Runtime.getRuntime().halt(0);
  }

  private static Topology topology(String topic, boolean dedupe, Progress progress) {
    Topology topology = new Topology();
    topology.addSource(
        "events", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), topic);
    topology.addProcessor("count", () -> new Counting(dedupe, progress), "events");
    topology.addStateStore(
        Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore(Counting.COUNTS), Serdes.Bytes(), Serdes.ByteArray())
            .withCachingEnabled()
            .withLoggingEnabled(Map.of()),
        "count");
    if (dedupe) {
      topology.addStateStore(
          Stores.keyValueStoreBuilder(
                  Stores.persistentKeyValueStore(Counting.SEEN), Serdes.Bytes(), Serdes.ByteArray())
              .withCachingEnabled()
              .withLoggingEnabled(Map.of()),
          "count");
    }
    return topology;
  }

  private static Properties settings(List<String> given) {
    Properties settings = new Properties();
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get(0));
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get(2));
    settings.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(given.get(3)).toString());
    settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, given.get(4));
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64L << 20);
    settings.put(StreamsConfig.mainConsumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
    return settings;
  }
}
