// The kernels compiled for AVX-512F; the build gives this file alone its instruction set.
#if defined(__AVX512F__)
#include "core/v16_avx512.h"

#include "core/kernels.inl"

namespace tkt {

const Kernels *avx512_kernels() {
  static constexpr Kernels kernels = kernels_named(TKT_KERNELS_AVX512);
  return &kernels;
}

}  // namespace tkt

#else
#include "core/kernels.h"

namespace tkt {

const Kernels *avx512_kernels() { return nullptr; }

}  // namespace tkt
#endif
