// A vector of N registers R, which an including file defines for its instruction set: the type that kernels are written
// over. A register has broadcast, zero, load, store and the operations below as free functions.
#pragma once

#include <stdint.h>
#include <string.h>

#include "core/math.h"
#include "core/unroll.h"

namespace tkt {
namespace {

template <typename R, uint32_t N>
struct Vec {
  R r[N];

  static constexpr uint32_t kLanes = N * R::kLanes;

  static TKT_INLINE Vec broadcast(float x) {
    Vec v;
    TKT_UNROLL
    for (uint32_t i = 0; i < N; ++i) v.r[i] = R::broadcast(x);
    return v;
  }
  static TKT_INLINE Vec zero() {
    Vec v;
    TKT_UNROLL
    for (uint32_t i = 0; i < N; ++i) v.r[i] = R::zero();
    return v;
  }
  static TKT_INLINE Vec load(const float *from) {  // at a multiple of the vector's own size
    Vec v;
    TKT_UNROLL
    for (uint32_t i = 0; i < N; ++i) v.r[i] = R::load(from + i * R::kLanes);
    return v;
  }
  TKT_INLINE void store(float *to) const {
    TKT_UNROLL
    for (uint32_t i = 0; i < N; ++i) r[i].store(to + i * R::kLanes);
  }
};

template <typename R, uint32_t N, typename Operation>
TKT_INLINE Vec<R, N> each(const Vec<R, N> &a, const Vec<R, N> &b, Operation operation) {
  Vec<R, N> v;
  TKT_UNROLL
  for (uint32_t i = 0; i < N; ++i) v.r[i] = operation(a.r[i], b.r[i]);
  return v;
}

template <typename R, uint32_t N>
TKT_INLINE Vec<R, N> add(const Vec<R, N> &a, const Vec<R, N> &b) {
  return each(a, b, [](R x, R y) { return add(x, y); });
}
template <typename R, uint32_t N>
TKT_INLINE Vec<R, N> subtract(const Vec<R, N> &a, const Vec<R, N> &b) {
  return each(a, b, [](R x, R y) { return subtract(x, y); });
}
template <typename R, uint32_t N>
TKT_INLINE Vec<R, N> multiply(const Vec<R, N> &a, const Vec<R, N> &b) {
  return each(a, b, [](R x, R y) { return multiply(x, y); });
}
template <typename R, uint32_t N>
TKT_INLINE Vec<R, N> larger(const Vec<R, N> &a, const Vec<R, N> &b) {  // a > b ? a : b
  return each(a, b, [](R x, R y) { return larger(x, y); });
}
template <typename R, uint32_t N>
TKT_INLINE Vec<R, N> fused(const Vec<R, N> &a, const Vec<R, N> &b, const Vec<R, N> &c) {  // a * b + c
  Vec<R, N> v;
  TKT_UNROLL
  for (uint32_t i = 0; i < N; ++i) v.r[i] = fused(a.r[i], b.r[i], c.r[i]);
  return v;
}
template <typename R, uint32_t N>
TKT_INLINE Vec<R, N> where_equal(const Vec<R, N> &a, const Vec<R, N> &b,
                                 const Vec<R, N> &value) {  // a == b ? value : 0
  Vec<R, N> v;
  TKT_UNROLL
  for (uint32_t i = 0; i < N; ++i) v.r[i] = where_equal(a.r[i], b.r[i], value.r[i]);
  return v;
}

// out[j] = the sum of a[j] over its lanes, as if there were sixteen, those beyond its own being 0: l and l + 8 first, then
// l + 4, l + 2 and l + 1. Instruction sets overload it where a faster way gives the same bits.
template <uint32_t kCount, typename V>
TKT_INLINE void sum_lanes(const V *a, float *out) {
  for (uint32_t j = 0; j < kCount; ++j) {
    alignas(64) float lane[V::kLanes];
    a[j].store(lane);
    if (V::kLanes < 16) {
      for (float &l : lane) l += 0.0f;
    }
    for (uint32_t width = V::kLanes / 2; width > 0; width /= 2) {
      for (uint32_t l = 0; l < width; ++l) lane[l] += lane[l + width];
    }
    out[j] = lane[0];
  }
}

// block[j] lane l = rows[l][j], for sixteen floats of each row.
template <typename V>
inline void transpose(const float *const *rows, V *block) {
  alignas(64) float column[V::kLanes];
  for (uint32_t j = 0; j < 16; ++j) {
    for (uint32_t l = 0; l < V::kLanes; ++l) column[l] = rows[l][j];
    block[j] = V::load(column);
  }
}

// One float: the register of plain C, and of a single sample everywhere.
struct Scalar {
  float v;

  static constexpr uint32_t kLanes = 1;
  static TKT_INLINE Scalar broadcast(float x) { return {x}; }
  static TKT_INLINE Scalar zero() { return {0.0f}; }
  static TKT_INLINE Scalar load(const float *from) { return {*from}; }
  TKT_INLINE void store(float *to) const { *to = v; }
};

TKT_INLINE Scalar add(Scalar a, Scalar b) { return {a.v + b.v}; }
TKT_INLINE Scalar subtract(Scalar a, Scalar b) { return {a.v - b.v}; }
TKT_INLINE Scalar multiply(Scalar a, Scalar b) { return {a.v * b.v}; }
TKT_INLINE Scalar larger(Scalar a, Scalar b) { return {a.v > b.v ? a.v : b.v}; }
TKT_INLINE Scalar fused(Scalar a, Scalar b, Scalar c) { return {fused_f32(a.v, b.v, c.v)}; }
TKT_INLINE Scalar where_equal(Scalar a, Scalar b, Scalar value) { return {a.v == b.v ? value.v : 0.0f}; }

}  // namespace
}  // namespace tkt
