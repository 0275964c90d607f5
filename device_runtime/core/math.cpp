// The functions of math.h that no kernel uses: one copy for all.
#include "core/math.h"

namespace tkt {

// x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); f - f^2 / 2 + f^3 Q(f) by Remez.
float log_f32(float x) {
  if (!(x < __builtin_inff())) return x;
  uint32_t shifted = bits_of(x) - 0x3F3504F3u;  // the bits of sqrt(1/2)
  float e = float(int32_t(shifted) >> 23);
  float f = float_of((shifted & 0x7FFFFFu) + 0x3F3504F3u) - 1.0f;
  float q = fused_f32(f, -7.63449520e-2f, 1.27615750e-1f);
  q = fused_f32(q, f, -1.31601825e-1f);
  q = fused_f32(q, f, 1.42017588e-1f);
  q = fused_f32(q, f, -1.66233569e-1f);
  q = fused_f32(q, f, 2.00012267e-1f);
  q = fused_f32(q, f, -2.50008196e-1f);
  q = fused_f32(q, f, 3.33333313e-1f);
  float square = f * f;
  float low = fused_f32(square * f, q, e * 1.42860677e-6f);
  low = fused_f32(square, -0.5f, low);
  return fused_f32(e, 0.693145752f, f + low);
}

// The series around 0, which ends below the last bit of a double.
double cos_pi(double t) {
  const double y = 3.14159265358979312 * (t > 0.5 ? 1.0 - t : t), z = y * y;
  double sum = 1.0;
  for (int k = 11; k > 0; --k) sum = 1.0 - sum * (z / double((2 * k - 1) * (2 * k)));
  return t > 0.5 ? -sum : sum;
}

}  // namespace tkt
