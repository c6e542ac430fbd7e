package packstream.bench;

import java.nio.ByteBuffer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Adds the events of a packed record to the counts of their ad and day: impressions, clicks, micros spent. */
final class Counting implements Processor<byte[], byte[], Void, Void> {
  static final String COUNTS = "counts";
  static final String SEEN = "seen";
  private static final int DAY_S = 86_400;
  private static final byte[] MARK = {1};

  private final boolean dedupe;
  private final Progress progress;
  private KeyValueStore<Bytes, byte[]> counts;
  private KeyValueStore<Bytes, byte[]> seen;

  Counting(boolean dedupe, Progress progress) {
    this.dedupe = dedupe;
    this.progress = progress;
  }

  @Override
  public void init(ProcessorContext<Void, Void> context) {
    counts = context.getStateStore(COUNTS);
    seen = dedupe ? context.getStateStore(SEEN) : null;
  }

  @Override
  public void process(Record<byte[], byte[]> message) {
    AdColumns columns = AdColumns.decode(message.value());
    long counted = 0;
    for (int n = 0; n < columns.count(); n++) {
      if (isNew(columns, n)) {
        add(columns, n);
        counted++;
      }
    }
    progress.add(columns.count(), counted);
  }

  private boolean isNew(AdColumns columns, int n) {
    if (!dedupe) {
      return true;
    }
    return seen.putIfAbsent(Bytes.wrap(columns.eventId(n)), MARK) == null;
  }

  private void add(AdColumns columns, int n) {
    Bytes key = Bytes.wrap(columns.adAndDay(n, columns.issuedAt(n) / DAY_S));
    byte[] old = counts.get(key);
    ByteBuffer value = ByteBuffer.allocate(24);
    long impressions = old == null ? 0 : ByteBuffer.wrap(old).getLong(0);
    long clicks = old == null ? 0 : ByteBuffer.wrap(old).getLong(8);
    long spent = old == null ? 0 : ByteBuffer.wrap(old).getLong(16);
    boolean click = columns.isClick(n);
    value.putLong(impressions + (click ? 0 : 1)).putLong(clicks + (click ? 1 : 0));
    value.putLong(spent + columns.costMicros(n));
    counts.put(key, value.array());
  }
}
