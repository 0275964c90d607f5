// The register of AVX2 with FMA, eight floats.
#pragma once

#include <immintrin.h>

#include "core/vec.h"

namespace tkt {
namespace {

struct Ymm {
  __m256 v;

  static constexpr uint32_t kLanes = 8;
  static TKT_INLINE Ymm broadcast(float x) { return {_mm256_set1_ps(x)}; }
  static TKT_INLINE Ymm zero() { return {_mm256_setzero_ps()}; }
  static TKT_INLINE Ymm load(const float *from) { return {_mm256_load_ps(from)}; }
  TKT_INLINE void store(float *to) const { _mm256_store_ps(to, v); }
};

TKT_INLINE Ymm add(Ymm a, Ymm b) { return {_mm256_add_ps(a.v, b.v)}; }
TKT_INLINE Ymm subtract(Ymm a, Ymm b) { return {_mm256_sub_ps(a.v, b.v)}; }
TKT_INLINE Ymm multiply(Ymm a, Ymm b) { return {_mm256_mul_ps(a.v, b.v)}; }
TKT_INLINE Ymm larger(Ymm a, Ymm b) { return {_mm256_max_ps(a.v, b.v)}; }
TKT_INLINE Ymm fused(Ymm a, Ymm b, Ymm c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
TKT_INLINE Ymm where_equal(Ymm a, Ymm b, Ymm value) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ), value.v)};
}

// Four sums of eight lanes each: l + 4 (the other 128 bits), then l + 2 and l + 1 inside them.
TKT_INLINE void sum_eight(const __m256 *s, float *out) {
  __m256 first = _mm256_add_ps(_mm256_permute2f128_ps(s[0], s[2], 0x20), _mm256_permute2f128_ps(s[0], s[2], 0x31));
  __m256 second = _mm256_add_ps(_mm256_permute2f128_ps(s[1], s[3], 0x20), _mm256_permute2f128_ps(s[1], s[3], 0x31));
  __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(first, second, 0x44), _mm256_shuffle_ps(first, second, 0xEE));
  __m256 sums = _mm256_add_ps(pairs, _mm256_permute_ps(pairs, 0xB1));  // lanes 0, 2, 4, 6
  __m256 even = _mm256_permutevar8x32_ps(sums, _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0));
  _mm_storeu_ps(out, _mm256_castps256_ps128(even));
}

template <uint32_t kCount>
TKT_INLINE void sum_lanes(const Vec<Ymm, 1> *a, float *out) {
  static_assert(kCount % 4 == 0, "four at once");
  for (uint32_t j = 0; j < kCount; j += 4) {
    __m256 s[4];
    TKT_UNROLL
    for (uint32_t i = 0; i < 4; ++i) s[i] = _mm256_add_ps(a[j + i].r[0].v, _mm256_setzero_ps());
    sum_eight(s, out + j);
  }
}

template <uint32_t kCount>
TKT_INLINE void sum_lanes(const Vec<Ymm, 2> *a, float *out) {
  static_assert(kCount % 4 == 0, "four at once");
  for (uint32_t j = 0; j < kCount; j += 4) {
    __m256 s[4];
    TKT_UNROLL
    for (uint32_t i = 0; i < 4; ++i) s[i] = _mm256_add_ps(a[j + i].r[0].v, a[j + i].r[1].v);
    sum_eight(s, out + j);
  }
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

// block[j] lane l = rows[l][j]
TKT_INLINE void transpose(const float *const *rows, Vec<Ymm, 2> *block) {
  __m256 corner[4][8];
  TKT_UNROLL
  for (int i = 0; i < 8; ++i) {
    corner[0][i] = _mm256_loadu_ps(rows[i]);
    corner[1][i] = _mm256_loadu_ps(rows[i] + 8);
    corner[2][i] = _mm256_loadu_ps(rows[8 + i]);
    corner[3][i] = _mm256_loadu_ps(rows[8 + i] + 8);
  }
  TKT_UNROLL
  for (__m256 *c : corner) transpose8(c);
  TKT_UNROLL
  for (int i = 0; i < 8; ++i) {
    block[i] = {{{corner[0][i]}, {corner[2][i]}}};
    block[8 + i] = {{{corner[1][i]}, {corner[3][i]}}};
  }
}

}  // namespace
}  // namespace tkt
