// The kernels compiled for NEON on aarch64; the build gives this file alone its instruction set.
#if defined(__aarch64__)
#include "core/registers_neon.h"

namespace tkt {
namespace {

using V1 = Vec<Scalar, 1>;
using V8 = Vec<Quad, 2>;
using V16 = Vec<Quad, 4>;

constexpr uint32_t kGroupsAtOnce = 1;    // four chains of four registers: 16 accumulators
constexpr uint32_t kNonzerosAtOnce = 4;  // likewise
constexpr uint32_t kTilesAtOnce = 4;     // likewise
constexpr uint32_t kRowsAtOnce = 4;      // likewise

}  // namespace
}  // namespace tkt

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
