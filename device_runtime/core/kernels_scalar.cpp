// The reference kernels, in plain C for every processor. An app's library leaves them out where vector kernels always run.
#if !defined(TKT_NO_REFERENCE)
#define TKT_PLAIN_C
#include "core/vec.h"

namespace tkt {
namespace {

using V1 = Vec<Scalar, 1>;
using V8 = Vec<Scalar, 8>;
using V16 = Vec<Scalar, 16>;

constexpr uint32_t kGroupsAtOnce = 1, kNonzerosAtOnce = 4, kTilesAtOnce = 4, kRowsAtOnce = 4;

}  // namespace
}  // namespace tkt

#include "core/kernels.inl"

namespace tkt {

const Kernels *scalar_kernels() {
  static constexpr Kernels kernels = kernels_named(TKT_KERNELS_SCALAR);
  return &kernels;
}

}  // namespace tkt

#else
#include "core/kernels.h"

namespace tkt {

const Kernels *scalar_kernels() { return nullptr; }

}  // namespace tkt
#endif
