// Sixteen floats as two AVX2 registers: samples 0 to 7 in `low`, 8 to 15 in `high`.
#pragma once

#include <immintrin.h>

#include "core/math.h"
#include "core/unroll.h"

namespace tkt {
namespace {

struct V16 {
  __m256 low, high;

  static constexpr uint32_t kGroupsAtOnce = 1;    // four chains of two registers: 8 accumulators
  static constexpr uint32_t kNonzerosAtOnce = 4;  // likewise

  static V16 broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static V16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static V16 load(const float *from) { return {_mm256_load_ps(from), _mm256_load_ps(from + 8)}; }
  static V16 load_unaligned(const float *from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
  void store(float *to) const {
    _mm256_store_ps(to, low);
    _mm256_store_ps(to + 8, high);
  }
};

struct Lanes {
  __m256 low, high;  // all bits set where a lane is meant

  static Lanes first(uint32_t count) {
    const __m256i bound = _mm256_set1_epi32(static_cast<int>(count));
    const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i high = _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, low)), _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, high))};
  }
};

inline V16 add(V16 a, V16 b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline V16 subtract(V16 a, V16 b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline V16 multiply(V16 a, V16 b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline V16 divide(V16 a, V16 b) { return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
inline V16 square_root(V16 a) { return {_mm256_sqrt_ps(a.low), _mm256_sqrt_ps(a.high)}; }
inline V16 larger(V16 a, V16 b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }

inline V16 fused(V16 a, V16 b, V16 c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

inline __m256 where_positive(__m256 condition, __m256 value) {
  return _mm256_and_ps(_mm256_cmp_ps(condition, _mm256_setzero_ps(), _CMP_GT_OQ), value);
}
inline V16 where_positive(V16 condition, V16 value) {
  return {where_positive(condition.low, value.low), where_positive(condition.high, value.high)};
}

inline __m256 without_subnormals(__m256 x) {
  __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  return _mm256_andnot_ps(_mm256_cmp_ps(size, _mm256_set1_ps(kSmallestNormal), _CMP_LT_OQ), x);
}
inline V16 without_subnormals(V16 x) { return {without_subnormals(x.low), without_subnormals(x.high)}; }

inline V16 select(Lanes lanes, V16 inside, V16 outside) {
  return {_mm256_blendv_ps(outside.low, inside.low, lanes.low),
          _mm256_blendv_ps(outside.high, inside.high, lanes.high)};
}

// Lanes l + 8, then l + 4 (the other 128 bits), then l + 2 and l + 1 inside them.
template <uint32_t kCount>
inline void sum_lanes(const V16 *a, float *out) {
  static_assert(kCount == 4, "four at once");
  __m256 s[4];
  TKT_UNROLL
  for (int j = 0; j < 4; ++j) s[j] = _mm256_add_ps(a[j].low, a[j].high);
  __m256 first = _mm256_add_ps(_mm256_permute2f128_ps(s[0], s[2], 0x20), _mm256_permute2f128_ps(s[0], s[2], 0x31));
  __m256 second = _mm256_add_ps(_mm256_permute2f128_ps(s[1], s[3], 0x20), _mm256_permute2f128_ps(s[1], s[3], 0x31));
  __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xEE));
  __m256 sums = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0xB1));  // lanes 0, 2, 4, 6
  __m256 even = _mm256_permutevar8x32_ps(sums, _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0));
  _mm_storeu_ps(out, _mm256_castps256_ps128(even));
}

// Eight rows of eight floats.
inline void transpose8(__m256 *r) {
  __m256 a[8], b[8];
  TKT_UNROLL
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  TKT_UNROLL
  for (int i = 0; i < 8; i += 4) {
    TKT_UNROLL
    for (int k = 0; k < 2; ++k) {
      b[i + 2 * k] = _mm256_shuffle_ps(a[i + k], a[i + 2 + k], 0x44);
      b[i + 2 * k + 1] = _mm256_shuffle_ps(a[i + k], a[i + 2 + k], 0xEE);
    }
  }
  TKT_UNROLL
  for (int k = 0; k < 4; ++k) {
    r[k] = _mm256_permute2f128_ps(b[k], b[4 + k], 0x20);
    r[4 + k] = _mm256_permute2f128_ps(b[k], b[4 + k], 0x31);
  }
}

inline void transpose(V16 (&v)[16]) {
  __m256 corner[4][8];
  TKT_UNROLL
  for (int i = 0; i < 8; ++i) {
    corner[0][i] = v[i].low;
    corner[1][i] = v[i].high;
    corner[2][i] = v[8 + i].low;
    corner[3][i] = v[8 + i].high;
  }
  TKT_UNROLL
  for (__m256 *c : corner) transpose8(c);
  TKT_UNROLL
  for (int i = 0; i < 8; ++i) {
    v[i] = {corner[0][i], corner[2][i]};
    v[8 + i] = {corner[1][i], corner[3][i]};
  }
}

}  // namespace
}  // namespace tkt
