package io.pocketticket;

import java.io.ByteArrayOutputStream;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.SignatureException;
import java.security.interfaces.ECPublicKey;
import java.security.spec.ECFieldFp;
import java.security.spec.ECParameterSpec;
import java.security.spec.X509EncodedKeySpec;

/**
 * The public key of who makes an app's artifacts: ECDSA over P-256 with SHA-256, what {@code python -m export keygen}
 * and {@code sign} write. Refuses keys of any other kind.
 */
public final class SignatureKey {
  private static final String BEGIN = "-----BEGIN PUBLIC KEY-----";
  private static final String END = "-----END PUBLIC KEY-----";
  private static final String BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  private static final String REMEDY = "; give what `python -m export keygen` wrote";
  // The curve secp256r1, FIPS 186-4.
  private static final BigInteger PRIME =
      new BigInteger("FFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF", 16);
  private static final BigInteger B =
      new BigInteger("5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B", 16);
  private static final BigInteger ORDER =
      new BigInteger("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551", 16);

  private final PublicKey key;

  private SignatureKey(PublicKey key) {
    this.key = key;
  }

  /** The key in the text of a {@code public.pem}. Throws InvalidInputException for anything else. */
  public static @NonNull SignatureKey ofPem(@NonNull String pem) {
    int begin = pem.indexOf(BEGIN);
    int end = pem.indexOf(END);
    if (begin < 0 || end < begin) throw new InvalidInputException("the text is not a public key in PEM" + REMEDY);
    byte[] encoded = base64(pem.substring(begin + BEGIN.length(), end));
    try {
      return of(KeyFactory.getInstance("EC").generatePublic(new X509EncodedKeySpec(encoded)));
    } catch (GeneralSecurityException error) {
      throw new InvalidInputException("the PEM holds no public key of elliptic curves" + REMEDY);
    }
  }

  /** A key that was read elsewhere, as from a key store. */
  public static @NonNull SignatureKey of(@NonNull PublicKey key) {
    if (!(key instanceof ECPublicKey) || !isP256(((ECPublicKey) key).getParams())) {
      throw new InvalidInputException("the public key is of another kind than ECDSA over P-256" + REMEDY);
    }
    return new SignatureKey(key);
  }

  /** Throws BadSignatureException unless this key signed the content. */
  void check(ByteBuffer content, byte[] signature) {
    boolean fits = false;
    try {
      Signature verifier = Signature.getInstance("SHA256withECDSA");
      verifier.initVerify(key);
      verifier.update(content.duplicate());
      fits = verifier.verify(signature);
    } catch (SignatureException error) {
      fits = false; // not even the form of a signature
    } catch (GeneralSecurityException error) {
      throw new IllegalStateException("this system cannot check SHA256withECDSA", error);
    }
    if (!fits) {
      throw new BadSignatureException(
          "the signature does not fit: artifact or signature was changed, or another key signed it; do not use it");
    }
  }

  private static boolean isP256(ECParameterSpec curve) {
    return curve != null && curve.getCurve().getField() instanceof ECFieldFp
        && ((ECFieldFp) curve.getCurve().getField()).getP().equals(PRIME) && curve.getCurve().getB().equals(B)
        && curve.getOrder().equals(ORDER) && curve.getCofactor() == 1;
  }

  /** java.util.Base64 is in Android from 26 on only. What does not belong is left to the key's own parser. */
  private static byte[] base64(String text) {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    int bits = 0;
    int held = 0;
    for (int at = 0; at < text.length(); ++at) {
      int digit = BASE64.indexOf(text.charAt(at));
      if (digit < 0) continue; // line breaks and padding
      bits = bits << 6 | digit;
      held += 6;
      if (held >= 8) {
        held -= 8;
        bytes.write(bits >> held);
      }
    }
    return bytes.toByteArray();
  }
}
