// The reference kernels, in plain C for every processor.
#define TKT_PLAIN_C
#include "core/v16_scalar.h"

#include "core/kernels.inl"

namespace tkt {

const Kernels *scalar_kernels() {
  static constexpr Kernels kernels = kernels_named(TKT_KERNELS_SCALAR);
  return &kernels;
}

}  // namespace tkt
