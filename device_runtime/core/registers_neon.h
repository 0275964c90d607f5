// The register of NEON on aarch64, four floats. (32-bit NEON flushes subnormals, which changes bits.)
#pragma once

#include <arm_neon.h>

#include "core/vec.h"

namespace tkt {
namespace {

struct Quad {
  float32x4_t v;

  static constexpr uint32_t kLanes = 4;
  static TKT_INLINE Quad broadcast(float x) { return {vdupq_n_f32(x)}; }
  static TKT_INLINE Quad zero() { return {vdupq_n_f32(0.0f)}; }
  static TKT_INLINE Quad load(const float *from) { return {vld1q_f32(from)}; }
  TKT_INLINE void store(float *to) const { vst1q_f32(to, v); }
};

TKT_INLINE Quad add(Quad a, Quad b) { return {vaddq_f32(a.v, b.v)}; }
TKT_INLINE Quad subtract(Quad a, Quad b) { return {vsubq_f32(a.v, b.v)}; }
TKT_INLINE Quad multiply(Quad a, Quad b) { return {vmulq_f32(a.v, b.v)}; }
TKT_INLINE Quad larger(Quad a, Quad b) {  // not vmaxq_f32, which differs for NaN
  return {vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v)};
}
TKT_INLINE Quad fused(Quad a, Quad b, Quad c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
TKT_INLINE Quad where_equal(Quad a, Quad b, Quad value) {
  return {vbslq_f32(vceqq_f32(a.v, b.v), value.v, vdupq_n_f32(0.0f))};
}

// The lanes of four vectors that are already added up to four: l + 2 by interleaving two sums, then l + 1 by a pairwise
// addition.
TKT_INLINE void sum_quads(const float32x4_t *s, float *out) {
  float32x4_t halves[2];
  TKT_UNROLL
  for (int j = 0; j < 2; ++j) {
    float64x2_t x = vreinterpretq_f64_f32(s[2 * j]), y = vreinterpretq_f64_f32(s[2 * j + 1]);
    halves[j] = vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(x, y)), vreinterpretq_f32_f64(vzip2q_f64(x, y)));
  }
  vst1q_f32(out, vpaddq_f32(halves[0], halves[1]));
}

// One vector's registers added up: l + 8 first, then l + 4; lanes that it has not count as 0.
TKT_INLINE float32x4_t fold(const Vec<Quad, 4> &a) {
  return vaddq_f32(vaddq_f32(a.r[0].v, a.r[2].v), vaddq_f32(a.r[1].v, a.r[3].v));
}
TKT_INLINE float32x4_t fold(const Vec<Quad, 2> &a) {
  const float32x4_t zero = vdupq_n_f32(0.0f);
  return vaddq_f32(vaddq_f32(a.r[0].v, zero), vaddq_f32(a.r[1].v, zero));
}

template <uint32_t kCount, uint32_t N>
TKT_INLINE void sum_lanes(const Vec<Quad, N> *a, float *out) {
  static_assert(kCount % 4 == 0, "four at once");
  for (uint32_t j = 0; j < kCount; j += 4) {
    float32x4_t s[4];
    TKT_UNROLL
    for (uint32_t i = 0; i < 4; ++i) s[i] = fold(a[j + i]);
    sum_quads(s, out + j);
  }
}

// block[j] lane l = rows[l][j]
TKT_INLINE void transpose(const float *const *rows, Vec<Quad, 4> *block) {
  TKT_UNROLL
  for (int i = 0; i < 16; i += 4) {
    TKT_UNROLL
    for (int k = 0; k < 4; ++k) {  // the 4 x 4 block of rows i.. and columns 4 k..
      float32x4x2_t top = vtrnq_f32(vld1q_f32(rows[i] + 4 * k), vld1q_f32(rows[i + 1] + 4 * k));
      float32x4x2_t low = vtrnq_f32(vld1q_f32(rows[i + 2] + 4 * k), vld1q_f32(rows[i + 3] + 4 * k));
      TKT_UNROLL
      for (int c = 0; c < 2; ++c) {
        float64x2_t x = vreinterpretq_f64_f32(top.val[c]), y = vreinterpretq_f64_f32(low.val[c]);
        block[4 * k + c].r[i / 4].v = vreinterpretq_f32_f64(vzip1q_f64(x, y));
        block[4 * k + 2 + c].r[i / 4].v = vreinterpretq_f32_f64(vzip2q_f64(x, y));
      }
    }
  }
}

}  // namespace
}  // namespace tkt
