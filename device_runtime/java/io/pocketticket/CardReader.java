package io.pocketticket;

import java.util.ArrayList;
import java.util.List;

/**
 * Reads a card, RFC 8259 JSON, as far as this package needs it: checks that it is an object, and finds one list of it.
 * Refuses what is no JSON, half a surrogate pair, and objects and lists more than 64 deep, as CorruptArtifactException.
 */
final class CardReader {
  private static final int MAX_DEPTH = 64;

  private final String text;
  private int at;

  private CardReader(String text) {
    this.text = text;
  }

  /** The list of strings or numbers under a key of the card; null if there is none, or something else. */
  static @Nullable List<String> strings(String card, String key) {
    CardReader reader = new CardReader(card);
    reader.space();
    List<String> found = reader.object(key, 1);
    reader.space();
    if (reader.at != card.length()) throw reader.broken();
    return found;
  }

  /** An object; the list under `wanted`, the last one as in other readers, unless that is null. */
  private List<String> object(String wanted, int depth) {
    List<String> found = null;
    enter('{', depth);
    space();
    if (take('}')) return null;
    do {
      space();
      String key = string();
      space();
      expect(':');
      space();
      if (wanted != null && key.equals(wanted)) {
        found = peek() == '[' ? array(depth + 1) : skipped(depth + 1);
      } else {
        value(depth + 1);
      }
      space();
    } while (take(','));
    expect('}');
    return found;
  }

  private List<String> skipped(int depth) {
    value(depth);
    return null;
  }

  /** The texts of the elements; null if one is neither a string nor a number. */
  private List<String> array(int depth) {
    List<String> texts = new ArrayList<>();
    boolean plain = true;
    enter('[', depth);
    space();
    if (take(']')) return texts;
    do {
      space();
      String text = value(depth + 1);
      plain &= text != null;
      texts.add(text);
      space();
    } while (take(','));
    expect(']');
    return plain ? texts : null;
  }

  /** Any value; the text of a string or a number, else null. */
  private String value(int depth) {
    switch (peek()) {
      case '"':
        return string();
      case '{':
        object(null, depth);
        return null;
      case '[':
        array(depth);
        return null;
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

  private String word(String word) {
    if (!text.startsWith(word, at)) throw broken();
    at += word.length();
    return null;
  }

  private String number() {
    int from = at;
    take('-');
    if (!take('0')) digits();
    if (take('.')) digits();
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      digits();
    }
    return text.substring(from, at);
  }

  private void digits() {
    int from = at;
    while (peek() >= '0' && peek() <= '9') ++at;
    if (at == from) throw broken();
  }

  private String string() {
    StringBuilder characters = new StringBuilder();
    expect('"');
    while (!take('"')) characters.append(peek() == '\\' ? escape() : character());
    for (int i = 0; i < characters.length(); ++i) {
      if (!Character.isSurrogate(characters.charAt(i))) continue;
      if (i + 1 >= characters.length() || !Character.isSurrogatePair(characters.charAt(i), characters.charAt(i + 1))) {
        throw broken();
      }
      ++i;
    }
    return characters.toString();
  }

  private char character() {
    char next = peek();
    if (next < ' ') throw broken(); // also the end of the text
    ++at;
    return next;
  }

  private char escape() {
    ++at;
    char kind = character();
    int plain = "\"\\/bfnrt".indexOf(kind);
    if (plain >= 0) return "\"\\/\b\f\n\r\t".charAt(plain);
    if (kind != 'u' || at + 4 > text.length()) throw broken();
    int code = 0;
    for (int i = 0; i < 4; ++i) {
      int digit = Character.digit(text.charAt(at++), 16);
      if (digit < 0) throw broken();
      code = code << 4 | digit;
    }
    return (char) code;
  }

  private void space() {
    while (" \t\n\r".indexOf(peek()) >= 0) ++at;
  }

  /** The next character, or 0 at the end. */
  private char peek() {
    return at < text.length() ? text.charAt(at) : 0;
  }

  private boolean take(char wanted) {
    if (peek() != wanted || at >= text.length()) return false;
    ++at;
    return true;
  }

  private void expect(char wanted) {
    if (!take(wanted)) throw broken();
  }

  private void enter(char bracket, int depth) {
    if (depth > MAX_DEPTH) throw broken();
    expect(bracket);
  }

  private CorruptArtifactException broken() {
    return new CorruptArtifactException(
        "the card is not a JSON object (character " + at + "); export the ticket again");
  }
}
