// The kernels compiled for NEON, which every aarch64 processor has; the build gives this file alone its instruction set.
#if defined(__aarch64__)
#include "core/v16_neon.h"

#include "core/kernels.inl"

namespace tkt {

const Kernels *neon_kernels() {
  static constexpr Kernels kernels = kernels_named(TKT_KERNELS_NEON);
  return &kernels;
}

}  // namespace tkt

#else
#include "core/kernels.h"

namespace tkt {

const Kernels *neon_kernels() { return nullptr; }

}  // namespace tkt
#endif
