package io.pocketticket;

import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertNull;
import static org.junit.Assert.assertThrows;

import java.util.Arrays;
import java.util.Collections;
import org.junit.Test;

/** The list that is looked for, whatever stands around it; and everything that is no JSON object. */
public class CardReaderTest {
  @Test
  public void theListIsFound() {
    assertEquals(Arrays.asList("a", "b"), labels("{\"labels\": [\"a\", \"b\"]}"));
    assertEquals(Arrays.asList("0", "-1.5e+3", "7"), labels(" {\"labels\":[0,-1.5e+3 , 7]} "));
    assertEquals(Collections.emptyList(), labels("{\"labels\": []}"));
    assertEquals(Arrays.asList("x"),
        labels("{\"a\": {\"labels\": [\"inner\"]}, \"b\": [[], {}, [{}], true, false, null], \"labels\": [\"x\"]}"));
    assertEquals(Arrays.asList("\"\\/\b\f\n\r\té😀é"),
        labels("{\"labels\": [\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00é\"]}"));
    assertEquals(Arrays.asList("second"), labels("{\"labels\": [\"first\"], \"labels\": [\"second\"]}"));
  }

  @Test
  public void anotherKindOfValueIsNoList() {
    for (String card : new String[] {"{}", "{\"labels\": 1}", "{\"labels\": {\"a\": 1}}", "{\"labels\": [[\"a\"]]}",
             "{\"labels\": [true]}", "{\"Labels\": [\"a\"]}"}) {
      assertNull(card, labels(card));
    }
  }

  @Test
  public void whatIsNoObjectIsRefused() {
    String[] wrong = {"", "{", "}", "[]", "1", "null", "{}x", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}",
        "{\"a\":01}", "{\"a\":1.}", "{\"a\":+1}", "{\"a\":NaN}", "{\"a\":tru}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}",
        "{\"a\":\"\\ud83d\"}", "{\"a\":\"\\ude00\\ud83d\"}", "{\"a\":\"\n\"}", "{\"a\":\"", "{\"a\":[1,]}", "{\"a\":[1",
        "{\"a\":1 \"b\":2}", "\0{}", "{}\0"};
    for (String card : wrong) assertThrows(card, CorruptArtifactException.class, () -> labels(card));
    assertThrows(CorruptArtifactException.class, () -> labels("{\"a\":" + repeated("[", 100_000)));
  }

  @Test
  public void nestingIsTakenToTheDepthOfTheFormat() {
    for (String key : new String[] {"a", "labels"}) {
      for (String inner : new String[] {"", "1", "\"b\""}) { // 64 deep with the card itself
        assertNull(labels("{\"" + key + "\":" + repeated("[", 63) + inner + repeated("]", 63) + "}"));
        String deeper = "{\"" + key + "\":" + repeated("[", 64) + inner + repeated("]", 64) + "}";
        assertThrows(deeper, CorruptArtifactException.class, () -> labels(deeper));
      }
    }
    String objects = repeated("{\"a\":", 64) + "1" + repeated("}", 64);
    assertNull(labels(objects));
    assertThrows(CorruptArtifactException.class, () -> labels("{\"a\":" + objects + "}"));
  }

  private static String repeated(String each, int count) {
    StringBuilder all = new StringBuilder();
    for (int i = 0; i < count; ++i) all.append(each);
    return all.toString();
  }

  private static java.util.List<String> labels(String card) {
    return CardReader.strings(card, "labels");
  }
}
