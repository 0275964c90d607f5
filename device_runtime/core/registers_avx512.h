// The register of AVX-512F, sixteen floats.
#pragma once

#include "core/registers_x86.h"

namespace tkt {
namespace {

struct Zmm {
  __m512 v;

  static constexpr uint32_t kLanes = 16;
  static TKT_INLINE Zmm broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static TKT_INLINE Zmm zero() { return {_mm512_setzero_ps()}; }
  static TKT_INLINE Zmm load(const float *from) { return {_mm512_load_ps(from)}; }
  TKT_INLINE void store(float *to) const { _mm512_store_ps(to, v); }
};

TKT_INLINE Zmm add(Zmm a, Zmm b) { return {_mm512_add_ps(a.v, b.v)}; }
TKT_INLINE Zmm subtract(Zmm a, Zmm b) { return {_mm512_sub_ps(a.v, b.v)}; }
TKT_INLINE Zmm multiply(Zmm a, Zmm b) { return {_mm512_mul_ps(a.v, b.v)}; }
TKT_INLINE Zmm larger(Zmm a, Zmm b) { return {_mm512_max_ps(a.v, b.v)}; }
TKT_INLINE Zmm fused(Zmm a, Zmm b, Zmm c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
TKT_INLINE Zmm where_equal(Zmm a, Zmm b, Zmm value) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ), value.v)};
}

using V16 = Vec<Zmm, 1>;

// Each step halves the lanes that a sum is spread over, by one blend, one shuffle and one addition: a goes to the lanes
// whose number has the step's bit clear, b to the others.
TKT_INLINE __m512 fold8(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xFF00, b), _mm512_shuffle_f32x4(a, b, 0x4E));
}
TKT_INLINE __m512 fold4(__m512 a, __m512 b) {
  const __m512i crossed = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xF0F0, b), _mm512_permutex2var_ps(a, crossed, b));
}
TKT_INLINE __m512 fold2(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xCCCC, b), _mm512_shuffle_ps(a, b, 0x4E));
}
TKT_INLINE __m512 fold1(__m512 a, __m512 b) {
  const __m512i crossed = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xAAAA, b), _mm512_permutex2var_ps(a, crossed, b));
}

// The sum of a[j] over its lanes comes to lane j * (16 / count).
TKT_INLINE void sum_sixteen(const V16 *a, float *out) {
  __m512 e[8], f[4];
  TKT_UNROLL
  for (int j = 0; j < 8; ++j) e[j] = fold8(a[j].r[0].v, a[j + 8].r[0].v);
  TKT_UNROLL
  for (int j = 0; j < 4; ++j) f[j] = fold4(e[j], e[j + 4]);
  _mm512_storeu_ps(out, fold1(fold2(f[0], f[2]), fold2(f[1], f[3])));
}

TKT_INLINE void sum_eight(const V16 *a, float *out) {
  __m512 e[4];
  TKT_UNROLL
  for (int j = 0; j < 4; ++j) e[j] = fold8(a[j].r[0].v, a[j + 4].r[0].v);
  __m512 v = fold2(fold4(e[0], e[2]), fold4(e[1], e[3]));
  v = fold1(v, v);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, v)));
}

TKT_INLINE void sum_four(const V16 *a, float *out) {
  __m512 v = fold4(fold8(a[0].r[0].v, a[2].r[0].v), fold8(a[1].r[0].v, a[3].r[0].v));
  v = fold2(v, v);
  v = fold1(v, v);
  const __m512i fourth = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(fourth, v)));
}

template <uint32_t kCount>
TKT_INLINE void sum_lanes(const V16 *a, float *out) {
  static_assert(kCount == 16 || kCount == 8 || kCount == 4, "a power of two");
  if constexpr (kCount == 16) sum_sixteen(a, out);
  if constexpr (kCount == 8) sum_eight(a, out);
  if constexpr (kCount == 4) sum_four(a, out);
}

// block[j] lane l = rows[l][j]
TKT_INLINE void transpose(const float *const *rows, V16 *block) {
  __m512 v[16], a[16], b[16];
  TKT_UNROLL
  for (int i = 0; i < 16; ++i) v[i] = _mm512_loadu_ps(rows[i]);
  TKT_UNROLL
  for (int i = 0; i < 16; i += 2) {  // pairs of rows
    a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  TKT_UNROLL
  for (int i = 0; i < 16; i += 4) {  // 4 x 4 blocks: b[i + k] has column k of each 128-bit block
    TKT_UNROLL
    for (int k = 0; k < 2; ++k) {
      __m512d low = _mm512_castps_pd(a[i + k]), high = _mm512_castps_pd(a[i + 2 + k]);
      b[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      b[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  TKT_UNROLL
  for (int k = 0; k < 4; ++k) {  // blocks to their places
    __m512 top_even = _mm512_shuffle_f32x4(b[k], b[4 + k], 0x88), top_odd = _mm512_shuffle_f32x4(b[k], b[4 + k], 0xDD);
    __m512 low_even = _mm512_shuffle_f32x4(b[8 + k], b[12 + k], 0x88);
    __m512 low_odd = _mm512_shuffle_f32x4(b[8 + k], b[12 + k], 0xDD);
    block[k].r[0].v = _mm512_shuffle_f32x4(top_even, low_even, 0x88);
    block[8 + k].r[0].v = _mm512_shuffle_f32x4(top_even, low_even, 0xDD);
    block[4 + k].r[0].v = _mm512_shuffle_f32x4(top_odd, low_odd, 0x88);
    block[12 + k].r[0].v = _mm512_shuffle_f32x4(top_odd, low_odd, 0xDD);
  }
}

}  // namespace
}  // namespace tkt
