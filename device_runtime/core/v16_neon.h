// Sixteen floats as four NEON registers (aarch64 only: 32-bit NEON flushes subnormals, which changes bits).
#pragma once

#include <arm_neon.h>

#include "core/math.h"
#include "core/unroll.h"

namespace tkt {
namespace {

struct V16 {
  float32x4_t q[4];

  static constexpr uint32_t kGroupsAtOnce = 1;    // four chains of four registers: 16 accumulators
  static constexpr uint32_t kNonzerosAtOnce = 4;  // likewise

  static V16 broadcast(float x) { return {{vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}}; }
  static V16 zero() { return broadcast(0.0f); }
  static V16 load(const float *from) {
    return {{vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), vld1q_f32(from + 12)}};
  }
  static V16 load_unaligned(const float *from) { return load(from); }
  void store(float *to) const {
    TKT_UNROLL
    for (int i = 0; i < 4; ++i) vst1q_f32(to + 4 * i, q[i]);
  }
};

struct Lanes {
  uint32x4_t q[4];  // all bits set where a lane is meant

  static Lanes first(uint32_t count) {
    const uint32_t numbers[4] = {0, 1, 2, 3};
    Lanes lanes;
    TKT_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      lanes.q[i] = vcltq_u32(vaddq_u32(vld1q_u32(numbers), vdupq_n_u32(4 * i)), vdupq_n_u32(count));
    }
    return lanes;
  }
};

template <typename Operation>
inline V16 each(const V16 &a, const V16 &b, Operation operation) {
  return {{operation(a.q[0], b.q[0]), operation(a.q[1], b.q[1]), operation(a.q[2], b.q[2]), operation(a.q[3], b.q[3])}};
}

using Quad = float32x4_t;

inline V16 add(V16 a, V16 b) {
  return each(a, b, [](Quad x, Quad y) { return vaddq_f32(x, y); });
}
inline V16 subtract(V16 a, V16 b) {
  return each(a, b, [](Quad x, Quad y) { return vsubq_f32(x, y); });
}
inline V16 multiply(V16 a, V16 b) {
  return each(a, b, [](Quad x, Quad y) { return vmulq_f32(x, y); });
}
inline V16 divide(V16 a, V16 b) {
  return each(a, b, [](Quad x, Quad y) { return vdivq_f32(x, y); });
}
inline V16 square_root(V16 a) {
  return each(a, a, [](Quad x, Quad) { return vsqrtq_f32(x); });
}

inline V16 fused(V16 a, V16 b, V16 c) {
  return {{vfmaq_f32(c.q[0], a.q[0], b.q[0]), vfmaq_f32(c.q[1], a.q[1], b.q[1]), vfmaq_f32(c.q[2], a.q[2], b.q[2]),
           vfmaq_f32(c.q[3], a.q[3], b.q[3])}};
}

// Not vmaxq_f32, which differs for NaN.
inline V16 larger(V16 a, V16 b) {
  return each(a, b, [](Quad x, Quad y) { return vbslq_f32(vcgtq_f32(x, y), x, y); });
}

inline V16 where_positive(V16 condition, V16 value) {
  return each(condition, value, [](Quad x, Quad y) { return vbslq_f32(vcgtzq_f32(x), y, vdupq_n_f32(0.0f)); });
}

inline V16 without_subnormals(V16 x) {
  return each(x, x, [](Quad y, Quad) {
    return vbslq_f32(vcltq_f32(vabsq_f32(y), vdupq_n_f32(kSmallestNormal)), vdupq_n_f32(0.0f), y);
  });
}

inline V16 select(Lanes lanes, V16 inside, V16 outside) {
  TKT_UNROLL
  for (int i = 0; i < 4; ++i) outside.q[i] = vbslq_f32(lanes.q[i], inside.q[i], outside.q[i]);
  return outside;
}

// Lanes l + 8, then l + 4, then l + 2 by interleaving two sums, then l + 1 by a pairwise addition.
template <uint32_t kCount>
inline void sum_lanes(const V16 *a, float *out) {
  static_assert(kCount == 4, "four at once");
  Quad s[4];
  TKT_UNROLL
  for (int j = 0; j < 4; ++j) s[j] = vaddq_f32(vaddq_f32(a[j].q[0], a[j].q[2]), vaddq_f32(a[j].q[1], a[j].q[3]));
  Quad halves[2];
  TKT_UNROLL
  for (int j = 0; j < 2; ++j) {
    float64x2_t x = vreinterpretq_f64_f32(s[2 * j]), y = vreinterpretq_f64_f32(s[2 * j + 1]);
    halves[j] = vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(x, y)), vreinterpretq_f32_f64(vzip2q_f64(x, y)));
  }
  vst1q_f32(out, vpaddq_f32(halves[0], halves[1]));
}

inline void transpose(V16 (&v)[16]) {
  V16 t[16];
  TKT_UNROLL
  for (int i = 0; i < 16; i += 4) {
    TKT_UNROLL
    for (int k = 0; k < 4; ++k) {  // the 4 x 4 block of rows i.. and columns 4 k..
      float32x4x2_t top = vtrnq_f32(v[i].q[k], v[i + 1].q[k]), low = vtrnq_f32(v[i + 2].q[k], v[i + 3].q[k]);
      TKT_UNROLL
      for (int c = 0; c < 2; ++c) {
        float64x2_t x = vreinterpretq_f64_f32(top.val[c]), y = vreinterpretq_f64_f32(low.val[c]);
        t[4 * k + c].q[i / 4] = vreinterpretq_f32_f64(vzip1q_f64(x, y));
        t[4 * k + 2 + c].q[i / 4] = vreinterpretq_f32_f64(vzip2q_f64(x, y));
      }
    }
  }
  TKT_UNROLL
  for (int i = 0; i < 16; ++i) v[i] = t[i];
}

}  // namespace
}  // namespace tkt
