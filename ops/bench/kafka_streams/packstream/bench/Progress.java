package packstream.bench;

import java.util.concurrent.atomic.AtomicLong;

/** How many events were seen and counted, printed as "progress NANOSECONDS SEEN COUNTED". */
final class Progress {
  private final AtomicLong seen = new AtomicLong();
  private final AtomicLong counted = new AtomicLong();
  private long printed;

  void add(long more, long ofThemCounted) {
    counted.addAndGet(ofThemCounted);
    seen.addAndGet(more);
  }

  long print() {
    long now = seen.get();
    if (now > printed) {
      System.out.println("progress " + System.nanoTime() + " " + now + " " + counted.get());
      printed = now;
    }
    return now;
  }

  void end() {
    System.out.println("end " + System.nanoTime() + " " + seen.get() + " " + counted.get());
    System.out.flush();
  }
}
