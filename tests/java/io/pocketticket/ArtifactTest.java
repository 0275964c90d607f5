package io.pocketticket;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.File;
import java.io.FileNotFoundException;
import java.nio.ByteBuffer;
import java.security.KeyPairGenerator;
import java.security.spec.ECGenParameterSpec;
import java.util.Arrays;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

/** What an artifact tells, each way to read one, each kind that is refused, and who signed it. */
public class ArtifactTest {
  private static final File TINY = new File(Fixtures.FOLDER, "tiny.tkt");

  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void infoIsThatOfPython() throws Exception {
    Fixtures fixtures = Fixtures.of("labels");
    TicketInfo info = fixtures.artifact().info();
    assertArrayEquals(new int[] {3, 2, 2}, info.inputShape());
    assertEquals(12, info.inputElements());
    assertEquals(4, info.classCount());
    assertEquals(Loss.CROSS_ENTROPY, info.loss());
    assertEquals(Arrays.asList("red", "green", "blue", "grey"), info.labels());
    assertEquals(fixtures.facts.getProperty("operators"), join(info.operators()));
    assertEquals(fixtures.number("value_count"), info.valueCount());
    assertEquals(fixtures.number("dense_count"), info.denseCount());
    assertEquals(fixtures.number("nnz"), info.liveCount());
    assertEquals(fixtures.number("parameter_count"), info.parameterCount());
    assertEquals(fixtures.real("density"), info.density(), 0);
    assertEquals(fixtures.number("epochs"), info.epochs());
    assertEquals(8, info.batch());
    assertEquals(fixtures.facts.getProperty("ticket_hash"), info.ticketHash());
    assertEquals(fixtures.file("net.tkt").length(), info.artifactBytes());
    assertFalse(info.hasTrained());
    assertThrows(UnsupportedOperationException.class, () -> info.labels().set(0, "pink"));
    TicketInfo tiny = Artifact.of(TINY).info();
    assertTrue(tiny.hasTrained());
    assertEquals(Arrays.asList("no", "yes", "café"), tiny.labels());
    assertTrue(tiny.card(), tiny.card().startsWith("{"));
  }

  @Test
  public void everyWayToReadGivesTheSameTrainer() throws Exception {
    byte[] content = Fixtures.bytes(TINY);
    ByteBuffer atOdd = ByteBuffer.allocateDirect(content.length + 3);
    atOdd.position(3);
    atOdd.put(content).position(3);
    ByteBuffer direct = ByteBuffer.allocateDirect(content.length);
    direct.put(content).flip();
    Artifact[] all = {Artifact.of(TINY), Artifact.of(content), Artifact.of(ByteBuffer.wrap(content)),
        Artifact.of(atOdd), Artifact.of(direct), Artifact.of(direct.asReadOnlyBuffer())};
    for (Artifact artifact : all) {
      byte[] read = new byte[content.length];
      artifact.content().get(read);
      assertArrayEquals(content, read);
      try (Trainer trainer = Trainer.open(artifact, TrainerOptions.builder().start(Start.TRAINED).build())) {
        assertEquals(artifact.info().valueCount(), trainer.values().length);
        assertEquals(0.625f, trainer.values()[0], 0);
      }
    }
    assertEquals(3, atOdd.position()); // the caller's
  }

  @Test
  public void whatIsNoGoodArtifactIsRefusedByKind() throws Exception {
    String[] corrupt = {"flipped.tkt", "cut.tkt", "empty.tkt", "card.tkt", "utf8.tkt"};
    for (String name : corrupt) {
      assertThrows(name, CorruptArtifactException.class, () -> Artifact.of(new File(Fixtures.FOLDER, name)));
      byte[] content = Fixtures.bytes(new File(Fixtures.FOLDER, name));
      assertThrows(name, CorruptArtifactException.class, () -> Artifact.of(content));
    }
    assertThrows(IncompatibleArtifactException.class, () -> Artifact.of(new File(Fixtures.FOLDER, "version.tkt")));
    TicketException unknown =
        assertThrows(UnsupportedOperatorException.class, () -> Artifact.of(new File(Fixtures.FOLDER, "operator.tkt")));
    assertTrue(unknown.getMessage(), unknown.getMessage().contains("77"));
    assertThrows(FileNotFoundException.class, () -> Artifact.of(new File(Fixtures.FOLDER, "none.tkt")));
  }

  @Test
  public void aBufferThatIsNotDirectHasNoBytes() throws Exception {
    byte[] text = new byte[Native.TEXT_BYTES];
    int status = Native.inspect(ByteBuffer.allocate(64), new long[17], new byte[32], text);
    TicketException error = assertThrows(CorruptArtifactException.class, () -> Native.check(status, text));
    assertTrue(error.getMessage(), error.getMessage().contains("of 0 bytes"));
  }

  @Test
  public void everyFlippedBitIsFound() throws Exception {
    byte[] content = Fixtures.bytes(TINY);
    for (int place = 0; place < content.length; ++place) {
      content[place] ^= (byte) (1 << place % 8);
      assertThrows(TicketException.class, () -> Artifact.of(content));
      content[place] ^= (byte) (1 << place % 8);
    }
    Artifact.of(content);
  }

  @Test
  public void aSignatureIsCheckedBeforeAnythingIsRead() throws Exception {
    SignatureKey ours = key("ours");
    SignatureKey theirs = key("theirs");
    byte[] content = Fixtures.bytes(TINY);
    byte[] signature = Fixtures.bytes(new File(Fixtures.FOLDER, "tiny.tkt.sig"));
    assertEquals(3, Artifact.verified(TINY, ours).info().classCount());
    assertEquals(3, Artifact.verified(TINY, signature, ours).info().classCount());
    assertThrows(BadSignatureException.class, () -> Artifact.verified(TINY, theirs));
    assertThrows(BadSignatureException.class, () -> Artifact.verified(content, new byte[0], ours));
    for (int place = 0; place < content.length; place += 61) {
      content[place] ^= 1; // also where the artifact's own checksums would tell
      assertThrows(BadSignatureException.class, () -> Artifact.verified(content, signature, ours));
      content[place] ^= 1;
    }
    for (int place = 0; place < signature.length; ++place) {
      signature[place] ^= 1;
      assertThrows(BadSignatureException.class, () -> Artifact.verified(content, signature, ours));
      signature[place] ^= 1;
    }
    Artifact.verified(content, signature, ours);
    assertThrows(
        FileNotFoundException.class, () -> Artifact.verified(Fixtures.of("labels").file("net.tkt"), ours)); // unsigned
  }

  @Test
  public void aVerifiedFileMayBeWrittenInPlaceAfterwards() throws Exception {
    File copy = folder.newFile("copy.tkt");
    Fixtures.write(copy, Fixtures.bytes(TINY));
    byte[] signature = Fixtures.bytes(new File(Fixtures.FOLDER, "tiny.tkt.sig"));
    try (Artifact artifact = Artifact.verified(copy, signature, key("ours"))) {
      Fixtures.write(copy, new byte[(int) TINY.length()]);
      byte[] read = new byte[(int) TINY.length()];
      artifact.content().get(read);
      assertArrayEquals(Fixtures.bytes(TINY), read);
    }
  }

  @Test
  public void onlyKeysOfP256AreTaken() throws Exception {
    KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
    generator.initialize(new ECGenParameterSpec("secp384r1"));
    assertThrows(InvalidInputException.class, () -> SignatureKey.of(generator.generateKeyPair().getPublic()));
    generator.initialize(new ECGenParameterSpec("secp256r1"));
    SignatureKey.of(generator.generateKeyPair().getPublic());
    KeyPairGenerator rsa = KeyPairGenerator.getInstance("RSA");
    rsa.initialize(1024);
    assertThrows(InvalidInputException.class, () -> SignatureKey.of(rsa.generateKeyPair().getPublic()));
    String pem = new String(Fixtures.bytes(new File(Fixtures.FOLDER, "ours/public.pem")), "US-ASCII");
    String[] wrong = {"", "-----BEGIN PUBLIC KEY-----", pem.substring(0, 60), pem.replace("PUBLIC", "PRIVATE"),
        pem.substring(0, 40) + pem.substring(60)};
    for (String text : wrong) assertThrows(text, InvalidInputException.class, () -> SignatureKey.ofPem(text));
    SignatureKey.ofPem(pem.replace("\n", "\r\n"));
  }

  @Test
  public void aClosedArtifactServesTrainersThatAreOpen() throws Exception {
    Fixtures fixtures = Fixtures.of("labels");
    Artifact artifact = fixtures.artifact();
    Trainer trainer = Trainer.open(artifact, TrainerOptions.RECIPE);
    artifact.close();
    artifact.close();
    assertThrows(IllegalStateException.class, artifact::content);
    assertThrows(IllegalStateException.class, () -> Trainer.open(artifact, TrainerOptions.RECIPE));
    assertThrows(IllegalStateException.class, () -> Trainer.plan(artifact, TrainerOptions.RECIPE));
    assertEquals(4, artifact.info().classCount());
    System.gc();
    trainer.fit(fixtures.x, fixtures.labels(), Fixtures.steps(20));
    trainer.export();
    trainer.close();
  }

  private static SignatureKey key(String owner) throws Exception {
    return SignatureKey.ofPem(new String(Fixtures.bytes(new File(Fixtures.FOLDER, owner + "/public.pem")), "US-ASCII"));
  }

  private static String join(Iterable<String> words) {
    StringBuilder all = new StringBuilder();
    for (String word : words) all.append(all.length() > 0 ? "," : "").append(word);
    return all.toString();
  }
}
