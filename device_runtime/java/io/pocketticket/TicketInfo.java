package io.pocketticket;

import java.util.List;

/** What an artifact holds, in numbers; shares and densities are relative to the network that the search began with. */
public final class TicketInfo {
  int inputElements;
  int[] inputShape;
  int classCount;
  Loss loss;
  boolean hasTrained;
  int parameterCount;
  long valueCount;
  long denseCount;
  long liveCount;
  double density;
  int epochs;
  int batch;
  int artifactBytes;
  String ticketHash;
  String card;
  List<String> operators;
  List<String> labels;

  TicketInfo() {}

  /** Floats of one sample. */
  public int inputElements() {
    return inputElements;
  }

  /** The shape of one sample, as (channels, height, width); a copy. */
  public @NonNull int[] inputShape() {
    return inputShape.clone();
  }

  /** Outputs of the network; of a classifier its classes. */
  public int classCount() {
    return classCount;
  }

  public @NonNull Loss loss() {
    return loss;
  }

  /** One name a class, from the card; or the numbers where it has none that fit. Cannot be changed. */
  public @NonNull List<String> labels() {
    return labels;
  }

  /** The operators of the network's nodes, in order. Cannot be changed. */
  public @NonNull List<String> operators() {
    return operators;
  }

  /** Whether it can predict before it learns: {@link Start#TRAINED}. */
  public boolean hasTrained() {
    return hasTrained;
  }

  /** Tensors. */
  public int parameterCount() {
    return parameterCount;
  }

  /** Floats stored: live weights, dense and masked parameters. */
  public long valueCount() {
    return valueCount;
  }

  /** Floats of the whole network, unpruned. */
  public long denseCount() {
    return denseCount;
  }

  /** Live weights of the pruned layers. */
  public long liveCount() {
    return liveCount;
  }

  /** Live weights as a share of all weights of the pruned layers; 1 if none is pruned. */
  public double density() {
    return density;
  }

  /** How many epochs the recipe suggests; 0 for no suggestion. */
  public int epochs() {
    return epochs;
  }

  /** Samples a step by the recipe. */
  public int batch() {
    return batch;
  }

  public int artifactBytes() {
    return artifactBytes;
  }

  /** SHA-256 of the ticket, its identity; 64 hexadecimal digits. */
  public @NonNull String ticketHash() {
    return ticketHash;
  }

  /** The card, a JSON object: task, labels, verdict, provenance. */
  public @NonNull String card() {
    return card;
  }
}
