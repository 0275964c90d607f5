package io.pocketticket;

/** The memory of a trainer by part, exact before anything is allocated. */
public final class MemoryPlan {
  private final long valuesBytes;
  private final long gradientsBytes;
  private final long optimizerBytes;
  private final long activationsBytes;
  private final long indexBytes;
  private final long bookkeepingBytes;
  private final long totalBytes;
  private final long transferBytes;
  private final int microBatch;
  private final int recomputedNodes;
  private final int halfBuffers;

  MemoryPlan(long valuesBytes, long gradientsBytes, long optimizerBytes, long activationsBytes, long indexBytes,
      long bookkeepingBytes, long totalBytes, long transferBytes, int microBatch, int recomputedNodes,
      int halfBuffers) {
    this.valuesBytes = valuesBytes;
    this.gradientsBytes = gradientsBytes;
    this.optimizerBytes = optimizerBytes;
    this.activationsBytes = activationsBytes;
    this.indexBytes = indexBytes;
    this.bookkeepingBytes = bookkeepingBytes;
    this.totalBytes = totalBytes;
    this.transferBytes = transferBytes;
    this.microBatch = microBatch;
    this.recomputedNodes = recomputedNodes;
    this.halfBuffers = halfBuffers;
  }

  /** Every stored value. */
  public long valuesBytes() {
    return valuesBytes;
  }

  /** Their gradients, or those of the rows at work. */
  public long gradientsBytes() {
    return gradientsBytes;
  }

  /** Momentum, or the two moments of Adam. */
  public long optimizerBytes() {
    return optimizerBytes;
  }

  /** Activations and their gradients, of one micro batch. */
  public long activationsBytes() {
    return activationsBytes;
  }

  /** Patterns unpacked or transposed. */
  public long indexBytes() {
    return indexBytes;
  }

  /** The trainer, its plan, alignment. */
  public long bookkeepingBytes() {
    return bookkeepingBytes;
  }

  /** The arena: the sum of the parts above, held against {@code budgetBytes}. */
  public long totalBytes() {
    return totalBytes;
  }

  /** Beside the arena: one batch on its way from Java arrays, and its outputs on their way back. */
  public long transferBytes() {
    return transferBytes;
  }

  /** Samples computed at a time; fewer than the batch where a budget asks for it. */
  public int microBatch() {
    return microBatch;
  }

  /** Nodes of the network computed twice, to save memory. */
  public int recomputedNodes() {
    return recomputedNodes;
  }

  /** Activations kept as half floats. */
  public int halfBuffers() {
    return halfBuffers;
  }
}
