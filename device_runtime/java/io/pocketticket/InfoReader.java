package io.pocketticket;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * What an artifact holds, asked of the core, which checks every byte of it. Read here, after that, are the card's
 * labels and the recipe's number of epochs, which the C interface does not hand out (export/FORMAT.md).
 */
final class InfoReader {
  private static final int SECTION_COUNT = 16; // offsets in the file
  private static final int SECTION_TABLE = 64;
  private static final int SECTION_ROW_BYTES = 16;
  private static final int RECIPE = 2;
  private static final int EPOCHS = 32; // offset in the recipe
  private static final int FACTS = 17;
  private static final int HASH_BYTES = 32;

  private InfoReader() {}

  static TicketInfo read(ByteBuffer artifact) {
    byte[] text = new byte[Native.TEXT_BYTES];
    byte[] hash = new byte[HASH_BYTES];
    long[] facts = new long[FACTS];
    Native.check(Native.inspect(artifact, facts, hash, text), text);
    TicketInfo info = new TicketInfo();
    info.artifactBytes = artifact.capacity();
    info.ticketHash = hexadecimal(hash);
    info.inputElements = (int) facts[0];
    info.inputShape = new int[(int) facts[1]];
    for (int axis = 0; axis < info.inputShape.length; ++axis) info.inputShape[axis] = (int) facts[2 + axis];
    info.classCount = (int) facts[6];
    info.loss = loss((int) facts[7]);
    info.operators = operators(artifact, (int) facts[8], text);
    info.parameterCount = (int) facts[9];
    info.hasTrained = facts[10] != 0;
    info.valueCount = facts[11];
    info.denseCount = facts[12];
    info.liveCount = facts[13];
    info.density = facts[14] == 0 ? 1.0 : (double) facts[13] / facts[14];
    info.card = card(artifact, (int) facts[15], (int) facts[16]);
    info.labels = labels(info.card, info.classCount);
    info.epochs = epochs(artifact);
    info.batch = (int) recipe(artifact)[TrainerOptions.BATCH];
    return info;
  }

  /** The recipe's options, in the order of {@link TrainerOptions}. */
  static long[] recipe(ByteBuffer artifact) {
    byte[] text = new byte[Native.TEXT_BYTES];
    long[] options = new long[TrainerOptions.COUNT];
    Native.check(Native.defaultOptions(artifact, options, text), text);
    return options;
  }

  private static Loss loss(int code) {
    for (Loss loss : Loss.values()) {
      if (loss.code == code) return loss;
    }
    throw new UnsupportedOperatorException("loss " + code + " is not known; update this library");
  }

  private static List<String> operators(ByteBuffer artifact, int count, byte[] text) {
    int[] codes = new int[count];
    Native.check(Native.operators(artifact, codes, text), text);
    List<String> names = new ArrayList<>(count);
    for (int code : codes) {
      String name = Native.operatorName(code);
      names.add(name == null ? "operator " + code : name);
    }
    return Collections.unmodifiableList(names);
  }

  private static String card(ByteBuffer artifact, int offset, int length) {
    ByteBuffer bytes = artifact.duplicate();
    bytes.position(offset).limit(offset + length);
    try {
      return Native.UTF_8.newDecoder().decode(bytes).toString(); // which replaces nothing
    } catch (CharacterCodingException error) {
      throw new CorruptArtifactException("the card is not UTF-8; export the ticket again");
    }
  }

  private static List<String> labels(String card, int classCount) {
    List<String> labels = CardReader.strings(card, "labels");
    if (labels == null || labels.size() != classCount) {
      labels = new ArrayList<>(classCount);
      for (int index = 0; index < classCount; ++index) labels.add(Integer.toString(index));
    }
    return Collections.unmodifiableList(labels);
  }

  private static int epochs(ByteBuffer artifact) {
    ByteBuffer bytes = artifact.duplicate().order(ByteOrder.LITTLE_ENDIAN);
    for (int section = 0; section < bytes.getInt(SECTION_COUNT); ++section) {
      int row = SECTION_TABLE + SECTION_ROW_BYTES * section;
      if (bytes.getInt(row) == RECIPE) return bytes.getInt(bytes.getInt(row + 4) + EPOCHS);
    }
    throw new CorruptArtifactException("the artifact has no recipe; export the ticket again");
  }

  private static String hexadecimal(byte[] bytes) {
    StringBuilder text = new StringBuilder(2 * bytes.length);
    for (byte each : bytes)
      text.append(Character.forDigit(each >> 4 & 15, 16)).append(Character.forDigit(each & 15, 16));
    return text.toString();
  }
}
