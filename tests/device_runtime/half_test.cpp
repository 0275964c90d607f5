// Half floats of every kernel set this processor has, against their definition in doubles: all 65536, and the floats around
// the middle between two of them.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/kernels.h"
#include "core/math.h"

using namespace tkt;

namespace {

constexpr uint32_t kHalves = 65536, kInfinity = 0x7C00, kLargest = 0x7BFF;

int g_failed;

void require(bool sound, uint32_t kernels, const char *what, uint32_t bits, uint32_t found) {
  if (sound) return;
  fprintf(stderr, "half_test: kernels %u: %s of %08x is %08x\n", unsigned(kernels), what, unsigned(bits),
          unsigned(found));
  g_failed = 1;
}

// Of a finite half.
double value_of(uint32_t half) {
  const int exponent = int(half >> 10 & 31u), fraction = int(half & 1023u);
  const double size = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
  return half & 0x8000u ? -size : size;
}

void check_expand(const Kernels &kernels) {
  alignas(64) static uint16_t halves[kHalves], back[kHalves];
  alignas(64) static float floats[kHalves];
  for (uint32_t h = 0; h < kHalves; ++h) halves[h] = uint16_t(h);
  kernels.expand(halves, floats, kHalves);
  kernels.halve(floats, back, kHalves);
  for (uint32_t h = 0; h < kHalves; ++h) {
    const uint32_t size = h & 0x7FFFu, sign = h & 0x8000u;
    const bool finite = size < kInfinity;
    if (finite)
      require(bits_of(floats[h]) == bits_of(float(value_of(h))), kernels.name, "expand", h, bits_of(floats[h]));
    if (size > kInfinity) require(floats[h] != floats[h], kernels.name, "expand", h, bits_of(floats[h]));
    const uint32_t wanted = finite ? h : sign | (size == kInfinity ? kLargest : 0x7E00u);
    require(back[h] == wanted, kernels.name, "halve of expand", h, back[h]);
  }
}

uint32_t halved(const Kernels &kernels, float x) {
  alignas(64) float from[1] = {x};
  alignas(64) uint16_t to[1];
  kernels.halve(from, to, 1);
  return to[0];
}

// Below the middle of two neighbours it is the lower, above it the upper, in the middle the even one; beyond all the largest.
void check_rounding(const Kernels &kernels) {
  for (uint32_t low = 0; low < kLargest; ++low) {
    const float middle = float((value_of(low) + value_of(low + 1)) / 2);  // exact: one bit more than a half has
    const uint32_t even = low % 2 ? low + 1 : low;
    for (uint32_t sign = 0; sign <= 0x8000u; sign += 0x8000u) {
      const float s = sign ? -1.0f : 1.0f;
      const float below = float_of(bits_of(middle) - 1), above = float_of(bits_of(middle) + 1);
      require(halved(kernels, s * middle) == (sign | even), kernels.name, "halve", bits_of(s * middle),
              halved(kernels, s * middle));
      require(halved(kernels, s * below) == (sign | low), kernels.name, "halve", bits_of(s * below),
              halved(kernels, s * below));
      require(halved(kernels, s * above) == (sign | (low + 1)), kernels.name, "halve", bits_of(s * above),
              halved(kernels, s * above));
    }
  }
  const uint32_t large[] = {0x477FE000u, 0x477FE001u, 0x477FEFFFu, 0x477FF000u, 0x47800000u, 0x7F7FFFFFu, 0x7F800000u};
  for (uint32_t bits : large) {
    require(halved(kernels, float_of(bits)) == kLargest, kernels.name, "halve", bits, halved(kernels, float_of(bits)));
    const uint32_t negative = halved(kernels, -float_of(bits));
    require(negative == (kLargest | 0x8000u), kernels.name, "halve of minus", bits, negative);
  }
  const uint32_t tiny[] = {0x00000001u, 0x007FFFFFu, 0x00800000u, 0x32FFFFFFu, 0x33000000u};  // up to 2^-25
  for (uint32_t bits : tiny) require(halved(kernels, float_of(bits)) == 0, kernels.name, "halve", bits, 1);
}

}  // namespace

int main() {
  int sets = 0;
  for (uint32_t name = TKT_KERNELS_SCALAR; name <= TKT_KERNELS_NEON && !g_failed; ++name) {
    const Kernels *kernels = find_kernels(name);
    if (kernels == nullptr) continue;
    check_expand(*kernels);
    check_rounding(*kernels);
    ++sets;
  }
  printf("half_test: %d kernel sets\n", sets);
  return g_failed || sets == 0;
}
