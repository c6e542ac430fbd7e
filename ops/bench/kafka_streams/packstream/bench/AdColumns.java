package packstream.bench;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;

/** One `ad_events` record, read by hand from Avro's single-object encoding (schemas/events/ad_events.avsc). */
final class AdColumns {
  private static final int HEADER_BYTES = 10;
  private static final int ID_BYTES = 16;

  private final ByteBuffer in;
  private byte[] ads;
  private byte[] ids;
  private ByteBuffer ad;
  private byte[] kind;
  private ByteBuffer issuedAt;
  private ByteBuffer cost;

  private AdColumns(byte[] message) {
    in = ByteBuffer.wrap(message, HEADER_BYTES, message.length - HEADER_BYTES);
  }

  static AdColumns decode(byte[] message) {
    AdColumns columns = new AdColumns(message);
    columns.read();
    return columns;
  }

  private void read() {
    bytes(); // event_id
    bytes(); // event_type
    number(); // version
    number(); // occurred_at
    bytes(); // actor
    number(); // shard
    if (number() == 1) {
      number(); // tick_us
    }
    ads = bytes();
    ids = bytes();
    ad = column();
    kind = bytes();
    issuedAt = column();
    bytes(); // exp_s
    cost = column();
  }

  int count() {
    return kind.length;
  }

  byte[] eventId(int n) {
    return Arrays.copyOfRange(ids, n * ID_BYTES, (n + 1) * ID_BYTES);
  }

  byte[] adAndDay(int n, int day) {
    int from = (ad.getShort(2 * n) & 0xffff) * ID_BYTES;
    byte[] key = Arrays.copyOfRange(ads, from, from + ID_BYTES + 4);
    ByteBuffer.wrap(key).putInt(ID_BYTES, day);
    return key;
  }

  boolean isClick(int n) {
    return kind[n] != 0;
  }

  int issuedAt(int n) {
    return issuedAt.getInt(4 * n);
  }

  long costMicros(int n) {
    return cost.getInt(4 * n) & 0xffffffffL;
  }

  private byte[] bytes() {
    byte[] found = new byte[(int) number()];
    in.get(found);
    return found;
  }

  private ByteBuffer column() {
    return ByteBuffer.wrap(bytes()).order(ByteOrder.LITTLE_ENDIAN);
  }

  private long number() {
    long value = 0;
    for (int shift = 0; ; shift += 7) {
      byte next = in.get();
      value |= (next & 0x7fL) << shift;
      if (next >= 0) {
        return (value >>> 1) ^ -(value & 1);
      }
    }
  }
}
