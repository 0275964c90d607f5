// A block of Philox is spent on each value, so that the live ones of a sparse parameter are drawn without the others.
#include "core/draw.h"

#include "core/math.h"

namespace tkt {

bool is_distribution(const Distribution &from) {
  const float a = from.a, b = from.b, most = __builtin_fabsf(a) + b * 8.0f;  // normal draws are below 6.8 deviations
  return from.kind <= kNormal && is_finite(most) && b >= (from.kind == kUniform ? a : 0.0f) && (from.kind || b == 0);
}

float draw(const Distribution &from, uint64_t seed, uint32_t stream, uint32_t index) {
  if (from.kind == kConstant) return from.a;
  uint32_t words[4] = {index, stream, 0, 0};
  philox(seed, words);
  if (from.kind == kUniform) return fused_f32(from.b - from.a, float(words[0] >> 8) * 0x1p-24f, from.a);
  // Box and Muller 1958. The cosine of half a turn is distributed as that of a whole one.
  const float share = fused_f32(float(words[0]), 0x1p-32f, 0x1p-33f);  // above 0, at most 1
  const float radius = __builtin_sqrtf(-2.0f * log_f32(share));
  const float cosine = float(cos_pi((double(words[1]) + 0.5) * 0x1p-32));
  return fused_f32(from.b, radius * cosine, from.a);
}

}  // namespace tkt
