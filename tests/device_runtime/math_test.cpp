// The square root and the fused multiply-add of core/math.h, against the C library's: equal bits.
#include "core/math.h"

#include <math.h>
#include <stdio.h>

namespace {

uint64_t g_random = 88172645463325252u;

uint64_t next_random() {
  g_random ^= g_random << 13;
  g_random ^= g_random >> 7;
  g_random ^= g_random << 17;
  return g_random;
}

double double_of(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

int failed(const char *what, double x, double found, double right) {
  fprintf(stderr, "math_test: %s of %a is %a instead of %a\n", what, x, found, right);
  return 1;
}

int check_square_root(double x) {
  double found = tkt::sqrt_f64(x), right = sqrt(x);
  return memcmp(&found, &right, sizeof found) == 0 ? 0 : failed("sqrt", x, found, right);
}

// Every exponent and, among others, mantissas next to a power of two and next to squares.
int check_square_roots() {
  for (uint64_t exponent = 1; exponent < 2047; ++exponent) {
    const uint64_t ones = 0xFFFFFFFFFFFFFu, mantissas[] = {0, 1, 2, ones, ones - 1, next_random() & ones};
    for (uint64_t mantissa : mantissas) {
      if (check_square_root(double_of(exponent << 52 | mantissa))) return 1;
    }
  }
  const double themselves[] = {0.0, double_of(0x7FF0000000000000u), double_of(0x7FF8000000000000u)};
  for (double x : themselves) {
    if (check_square_root(x)) return 1;
  }
  for (int i = 0; i < 20000; ++i) {
    double root = 1.0 + double(next_random() >> 38) / double(1u << 26), square = root * root;
    const double near[] = {nextafter(square, 0.0), square, nextafter(square, 9.0)};
    for (double x : near) {
      if (check_square_root(x)) return 1;
    }
  }
  return 0;
}

int check_fused() {
  for (int i = 0; i < 100000; ++i) {
    float part[3];
    for (float &x : part)
      x = ldexpf(float(int64_t(next_random() % 0x2000001) - 0x1000000), int(next_random() % 30) - 15);
    if (i % 4 == 0) part[2] = -part[0] * part[1];
    if (i % 4 == 1) part[2] = ldexpf(part[2], -120);
    if (i % 4 == 2) {  // the product is next to half a unit of the addend, by less than f64 can hold in the sum
      const float little = ldexpf(float(int(next_random() % 7) - 3), -23);
      part[0] = 1.0f + little;
      part[1] = ldexpf(1.0f - little, -24);
      part[2] = 1.0f + ldexpf(float(next_random() % 8), -23);
    }
    float found = tkt::fused_f32(part[0], part[1], part[2]), right = fmaf(part[0], part[1], part[2]);
    if (memcmp(&found, &right, sizeof found) != 0)
      return failed("fused", double(part[0]), double(found), double(right));
  }
  return 0;
}

}  // namespace

int main() {
  if (check_square_roots() || check_fused()) return 1;
  printf("math_test: every bit equal\n");
  return 0;
}
