package io.pocketticket;

import java.util.concurrent.locks.ReentrantLock;

/**
 * Whose turn it is at a trainer: one thread at a time, others are refused at once. The end waits for the turn under
 * way; once it was announced, nobody enters any more.
 */
final class Turn {
  private final ReentrantLock lock = new ReentrantLock();
  private volatile String holder = "";
  private volatile boolean ending;

  /** Takes the turn, or within a listener takes it again; throws IllegalStateException. */
  void enter(String verb) {
    checkOpen();
    if (!lock.tryLock()) {
      checkOpen();
      throw new IllegalStateException(
          verb + " came while " + holder + "; a trainer serves one thread at a time, so wait for it or cancel it");
    }
    if (ending) { // announced meanwhile, and perhaps done
      lock.unlock();
      checkOpen();
    }
    if (lock.getHoldCount() == 1) holder = verb + " runs in thread '" + Thread.currentThread().getName() + "'";
  }

  /** The same for what a listener may not do. */
  void enterAlone(String verb) {
    if (lock.isHeldByCurrentThread()) {
      throw new IllegalStateException(verb + " came from a listener while " + holder + "; call it after that");
    }
    enter(verb);
  }

  void checkOpen() {
    if (ending) throw new IllegalStateException("the trainer is closed; open it again");
  }

  /** Gives the turn back. */
  void leave() {
    lock.unlock();
  }

  /** Whether the end was announced and this is the last moment of the turn. */
  boolean isLast() {
    return ending && lock.getHoldCount() == 1;
  }

  void announceEnd() {
    ending = true;
  }

  /** Waits for the turn under way and takes it; false within it, where the one who holds it sees to the end. */
  boolean awaitEnd() {
    if (lock.isHeldByCurrentThread()) return false;
    lock.lock();
    return true;
  }
}
