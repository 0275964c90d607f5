// Chooses the kernels by asking the processor, and the operating system whether it keeps the registers.
#include "core/kernels.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace tkt {
namespace {

#if defined(__x86_64__) || defined(__i386__)
constexpr uint32_t kFma = 1u << 12, kOsSavesRegisters = 1u << 27, kAvx = 1u << 28;  // leaf 1, ecx
constexpr uint32_t kAvx2 = 1u << 5, kAvx512f = 1u << 16;                            // leaf 7, ebx
constexpr uint32_t kYmmState = 0x06, kZmmState = 0xE6;                              // XCR0

uint32_t saved_registers() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool processor_has(uint32_t leaf7_bits, uint32_t state) {
  uint32_t a, b, c, d;
  const uint32_t needed = kFma | kOsSavesRegisters | kAvx;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & needed) != needed) return false;
  if ((saved_registers() & state) != state) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & leaf7_bits) == leaf7_bits;
}

bool processor_has_avx2() { return processor_has(kAvx2, kYmmState); }
bool processor_has_avx512() { return processor_has(kAvx2 | kAvx512f, kZmmState); }
#else
bool processor_has_avx2() { return false; }
bool processor_has_avx512() { return false; }
#endif

}  // namespace

const Kernels *find_kernels(uint32_t name) {
  switch (name) {
    case TKT_KERNELS_SCALAR: return scalar_kernels();
    case TKT_KERNELS_AVX2: return processor_has_avx2() ? avx2_kernels() : nullptr;
    case TKT_KERNELS_AVX512: return processor_has_avx512() ? avx512_kernels() : nullptr;
    case TKT_KERNELS_NEON: return neon_kernels();
    default: break;
  }
  const uint32_t fastest_first[] = {TKT_KERNELS_AVX512, TKT_KERNELS_AVX2, TKT_KERNELS_NEON};
  for (uint32_t fast : fastest_first) {
    if (const Kernels *kernels = find_kernels(fast)) return kernels;
  }
  return scalar_kernels();
}

}  // namespace tkt
