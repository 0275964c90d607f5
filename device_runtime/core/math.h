// fma, sqrt, expf and logf with the same bits on every target: no libm, no table, every contraction written out.
// What kernels use is static: each kernel file compiles its own copy for its own instruction set. Errors: see the tests (<= 2 ulp).
#pragma once

#include <stdint.h>
#include <string.h>

namespace tkt {

static inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

constexpr float kSmallestNormal = 1.17549435e-38f;  // 2^-126

static inline bool is_finite(float x) { return x - x == 0; }

// a * b + c, rounded once. Clang tells by other names than GCC that the processor has it.
static inline float fused_f32(float a, float b, float c) {
#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return __builtin_fmaf(a, b, c);
#else
  // The product is exact in f64. The sum is rounded to odd (Boldo and Melquiond 2008), so that rounding to f32 is right.
  double product = double(a) * double(b), addend = double(c);
  double sum = product + addend;
  double seen = sum - product;
  double lost = (product - (sum - seen)) + (addend - seen);
  uint64_t bits;
  memcpy(&bits, &sum, sizeof bits);
  bool inexact = lost > 0 || lost < 0;  // false for NaN, when a result is not finite
  if (inexact && (bits & 1) == 0) bits += (lost > 0) == (sum > 0) ? uint64_t(1) : ~uint64_t(0);
  memcpy(&sum, &bits, sizeof sum);
  return float(sum);
#endif
}

// The square root, digit by digit: where double precision is software, the compiler would call libm for it. Zero, infinity
// and NaN give themselves; what else is not normal and positive is no input.
static inline double sqrt_f64(double x) {
  if (!(x > 0 && x < __builtin_inf())) return x;
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int exponent = int(bits >> 52) - 1075;  // x = mantissa * 2^exponent
  uint64_t mantissa = (bits & 0xFFFFFFFFFFFFFu) | uint64_t(1) << 52, root = 0, rest = 0;
  if (exponent & 1) mantissa *= 2, --exponent;
  for (int digit = 53; digit >= 0; --digit) {  // root = the whole part of sqrt(mantissa * 2^54)
    rest = rest << 2 | (digit < 27 ? 0 : mantissa >> (2 * (digit - 27)) & 3);
    uint64_t trial = root << 2 | 1;
    root = root << 1 | (rest >= trial);
    if (rest >= trial) rest -= trial;
  }
  // Rounded to nearest; a carry out of the mantissa rightly moves the exponent. There are no ties.
  bits = (root >> 1) + (root & 1) + (uint64_t(exponent / 2 + 1048) << 52);
  memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^k for a whole k in [-126, 127].
static inline float power_of_two(float k) {
  return float_of(bits_of(k + 12583039.0f) << 23);  // 1.5 * 2^23 + 127: the sum's low bits are k + 127
}

// e^x: x = k ln 2 + r, |r| <= ln 2 / 2; 1 + r + r^2 P(r) by Remez; two scalings, so that subnormals are rounded once.
static inline float exp_f32(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  float k = fused_f32(x, 1.44269504f, 12582912.0f) - 12582912.0f;
  float r = fused_f32(k, -0.693145752f, x);
  r = fused_f32(k, -1.42860677e-6f, r);
  float p = fused_f32(r, 1.38144637e-3f, 8.36878084e-3f);
  p = fused_f32(p, r, 4.16683927e-2f);
  p = fused_f32(p, r, 1.66665196e-1f);
  p = fused_f32(p, r, 4.99999940e-1f);
  p = fused_f32(p, r * r, r);
  float half = fused_f32(k, 0.5f, 12582912.0f) - 12582912.0f;
  return (p + 1.0f) * power_of_two(half) * power_of_two(k - half);
}

// ln x for a normal x > 0. NaN and infinity give themselves; what else is not normal and positive is no input.
float log_f32(float x);

// 1 / (1 + e^-x)
static inline float sigmoid_f32(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

// Near 0 x + x^3 P(x^2) by a minimax fit, else by e^2|x|.
static inline float tanh_f32(float x) {
  const float size = __builtin_fabsf(x), z = x * x;
  float p = fused_f32(z, -6.28367066e-3f, 2.11214591e-2f);
  p = fused_f32(p, z, -5.38763180e-2f);
  p = fused_f32(p, z, 1.33329332e-1f);
  p = fused_f32(p, z, -3.33333313e-1f);
  const float near = fused_f32(p * z, x, x);
  const float far = 1.0f - 2.0f / (exp_f32(size + size) + 1.0f);
  return size < 0.6f ? near : (x < 0 ? -far : far);
}

// Near 0 x P(x^2), else 1 - e^-Q(|x|), both by minimax fits.
static inline float erf_f32(float x) {
  const float size = __builtin_fabsf(x), z = x * x, y = size < 4.0f ? size : 4.0f;
  float p = fused_f32(z, -6.01339270e-4f, 4.99800109e-3f);
  p = fused_f32(p, z, -2.67702322e-2f);
  p = fused_f32(p, z, 1.12819269e-1f);
  p = fused_f32(p, z, -3.76125067e-1f);
  p = fused_f32(p, z, 1.12837911f);
  float q = fused_f32(y, -1.94734617e-4f, 3.03160166e-3f);
  q = fused_f32(q, y, -2.21814029e-2f);
  q = fused_f32(q, y, 1.03838913e-1f);
  q = fused_f32(q, y, 6.37285769e-1f);
  q = fused_f32(q, y, 1.12761545f);
  q = fused_f32(q, y, 2.09913516e-4f);
  const float far = 1.0f - exp_f32(-q);
  return size < 0.921875f ? p * x : (x < 0 ? -far : far);
}

// cos(pi t) for t in [0, 1].
double cos_pi(double t);

}  // namespace tkt
