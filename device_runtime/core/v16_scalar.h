// Sixteen floats as plain C: the reference that every other V16 equals bit for bit.
#pragma once

#include "core/math.h"

namespace tkt {
namespace {

struct V16 {
  float lane[16];

  static constexpr uint32_t kGroupsAtOnce = 1;    // of a product; as many as accumulators fit the registers
  static constexpr uint32_t kNonzerosAtOnce = 4;  // of a weight gradient; likewise

  static V16 broadcast(float x) {
    V16 v;
    for (float &lane : v.lane) lane = x;
    return v;
  }
  static V16 zero() { return broadcast(0.0f); }
  static V16 load(const float *from) {
    V16 v;
    memcpy(v.lane, from, sizeof v.lane);
    return v;
  }
  static V16 load_unaligned(const float *from) { return load(from); }
  void store(float *to) const { memcpy(to, lane, sizeof lane); }
};

// The first `count` lanes.
struct Lanes {
  uint32_t count;

  static Lanes first(uint32_t count) { return {count}; }
};

template <typename Operation>
inline V16 map(const V16 &a, const V16 &b, Operation operation) {
  V16 v;
  for (int l = 0; l < 16; ++l) v.lane[l] = operation(a.lane[l], b.lane[l]);
  return v;
}

inline V16 add(V16 a, V16 b) {
  return map(a, b, [](float x, float y) { return x + y; });
}
inline V16 subtract(V16 a, V16 b) {
  return map(a, b, [](float x, float y) { return x - y; });
}
inline V16 multiply(V16 a, V16 b) {
  return map(a, b, [](float x, float y) { return x * y; });
}
inline V16 divide(V16 a, V16 b) {
  return map(a, b, [](float x, float y) { return x / y; });
}
inline V16 square_root(V16 a) {
  return map(a, a, [](float x, float) { return __builtin_sqrtf(x); });
}

// a * b + c
inline V16 fused(V16 a, V16 b, V16 c) {
  V16 v;
  for (int l = 0; l < 16; ++l) v.lane[l] = fused_f32(a.lane[l], b.lane[l], c.lane[l]);
  return v;
}

// condition > 0 ? value : 0
inline V16 where_positive(V16 condition, V16 value) {
  return map(condition, value, [](float x, float y) { return x > 0 ? y : 0.0f; });
}

// Zero where x is subnormal, with which processors compute a hundred times more slowly.
inline V16 without_subnormals(V16 x) {
  return map(x, x, [](float y, float) { return __builtin_fabsf(y) < kSmallestNormal ? 0.0f : y; });
}

// a > b ? a : b
inline V16 larger(V16 a, V16 b) {
  return map(a, b, [](float x, float y) { return x > y ? x : y; });
}

inline V16 select(Lanes lanes, V16 inside, V16 outside) {
  for (uint32_t l = 0; l < lanes.count; ++l) outside.lane[l] = inside.lane[l];
  return outside;
}

// out[j] = the sum of a[j] over lanes: l and l + 8 first, then l + 4, l + 2, l + 1.
template <uint32_t kCount>
inline void sum_lanes(const V16 *a, float *out) {
  for (uint32_t j = 0; j < kCount; ++j) {
    V16 v = a[j];
    for (int width = 8; width > 0; width /= 2) {
      for (int l = 0; l < width; ++l) v.lane[l] += v.lane[l + width];
    }
    out[j] = v.lane[0];
  }
}

inline void transpose(V16 (&v)[16]) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < i; ++j) {
      float held = v[i].lane[j];
      v[i].lane[j] = v[j].lane[i];
      v[j].lane[i] = held;
    }
  }
}

}  // namespace
}  // namespace tkt
