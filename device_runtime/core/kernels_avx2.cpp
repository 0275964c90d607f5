// The kernels compiled for AVX2 with FMA; the build gives this file alone its instruction set.
#if defined(__AVX2__) && defined(__FMA__)
#include "core/v16_avx2.h"

#include "core/kernels.inl"

namespace tkt {

const Kernels *avx2_kernels() {
  static constexpr Kernels kernels = kernels_named(TKT_KERNELS_AVX2);
  return &kernels;
}

}  // namespace tkt

#else
#include "core/kernels.h"

namespace tkt {

const Kernels *avx2_kernels() { return nullptr; }

}  // namespace tkt
#endif
