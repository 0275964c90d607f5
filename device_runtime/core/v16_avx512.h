// Sixteen floats as one AVX-512 register.
#pragma once

#include <immintrin.h>

#include "core/math.h"
#include "core/unroll.h"

namespace tkt {
namespace {

struct V16 {
  __m512 v;

  static constexpr uint32_t kGroupsAtOnce = 2;     // four chains of two groups: 8 accumulators
  static constexpr uint32_t kNonzerosAtOnce = 16;  // 16 accumulators

  static V16 broadcast(float x) { return {_mm512_set1_ps(x)}; }
  static V16 zero() { return {_mm512_setzero_ps()}; }
  static V16 load(const float *from) { return {_mm512_load_ps(from)}; }
  static V16 load_unaligned(const float *from) { return {_mm512_loadu_ps(from)}; }
  void store(float *to) const { _mm512_store_ps(to, v); }
};

struct Lanes {
  __mmask16 mask;

  static Lanes first(uint32_t count) { return {static_cast<__mmask16>((1u << count) - 1u)}; }
};

inline V16 add(V16 a, V16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline V16 subtract(V16 a, V16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline V16 multiply(V16 a, V16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline V16 divide(V16 a, V16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline V16 square_root(V16 a) { return {_mm512_sqrt_ps(a.v)}; }
inline V16 fused(V16 a, V16 b, V16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline V16 larger(V16 a, V16 b) { return {_mm512_max_ps(a.v, b.v)}; }  // exactly a > b ? a : b

inline V16 where_positive(V16 condition, V16 value) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(condition.v, _mm512_setzero_ps(), _CMP_GT_OQ), value.v)};
}

inline V16 without_subnormals(V16 x) {
  __mmask16 kept = _mm512_cmp_ps_mask(_mm512_abs_ps(x.v), _mm512_set1_ps(kSmallestNormal), _CMP_NLT_UQ);
  return {_mm512_maskz_mov_ps(kept, x.v)};
}

inline V16 select(Lanes lanes, V16 inside, V16 outside) {
  return {_mm512_mask_mov_ps(outside.v, lanes.mask, inside.v)};
}

// Each step halves the lanes that a sum is spread over, by one blend, one shuffle and one addition: a goes to the lanes
// whose number has the step's bit clear, b to the others.
inline __m512 fold8(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xFF00, b), _mm512_shuffle_f32x4(a, b, 0x4E));
}
inline __m512 fold4(__m512 a, __m512 b) {
  const __m512i crossed = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xF0F0, b), _mm512_permutex2var_ps(a, crossed, b));
}
inline __m512 fold2(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xCCCC, b), _mm512_shuffle_ps(a, b, 0x4E));
}
inline __m512 fold1(__m512 a, __m512 b) {
  const __m512i crossed = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
  return _mm512_add_ps(_mm512_mask_mov_ps(a, 0xAAAA, b), _mm512_permutex2var_ps(a, crossed, b));
}

// The sum of a[j] over its lanes comes to lane j * (16 / kCount).
template <uint32_t kCount>
inline void sum_lanes(const V16 *a, float *out);

template <>
inline void sum_lanes<16>(const V16 *a, float *out) {
  __m512 e[8], f[4];
  TKT_UNROLL
  for (int j = 0; j < 8; ++j) e[j] = fold8(a[j].v, a[j + 8].v);
  TKT_UNROLL
  for (int j = 0; j < 4; ++j) f[j] = fold4(e[j], e[j + 4]);
  _mm512_storeu_ps(out, fold1(fold2(f[0], f[2]), fold2(f[1], f[3])));
}

template <>
inline void sum_lanes<8>(const V16 *a, float *out) {
  __m512 e[4];
  TKT_UNROLL
  for (int j = 0; j < 4; ++j) e[j] = fold8(a[j].v, a[j + 4].v);
  __m512 v = fold2(fold4(e[0], e[2]), fold4(e[1], e[3]));
  v = fold1(v, v);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm256_storeu_ps(out, _mm512_castps512_ps256(_mm512_permutexvar_ps(even, v)));
}

template <>
inline void sum_lanes<4>(const V16 *a, float *out) {
  __m512 v = fold4(fold8(a[0].v, a[2].v), fold8(a[1].v, a[3].v));
  v = fold2(v, v);
  v = fold1(v, v);
  const __m512i fourth = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(fourth, v)));
}

inline void transpose(V16 (&v)[16]) {
  __m512 a[16], b[16];
  TKT_UNROLL
  for (int i = 0; i < 16; i += 2) {  // pairs of rows
    a[i] = _mm512_unpacklo_ps(v[i].v, v[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(v[i].v, v[i + 1].v);
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
    v[k].v = _mm512_shuffle_f32x4(top_even, low_even, 0x88);
    v[8 + k].v = _mm512_shuffle_f32x4(top_even, low_even, 0xDD);
    v[4 + k].v = _mm512_shuffle_f32x4(top_odd, low_odd, 0x88);
    v[12 + k].v = _mm512_shuffle_f32x4(top_odd, low_odd, 0xDD);
  }
}

}  // namespace
}  // namespace tkt
