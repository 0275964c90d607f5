// The kernels compiled for AVX2 with FMA; the build gives this file alone its instruction set.
#if defined(__AVX2__) && defined(__FMA__)
#include "core/registers_x86.h"

namespace tkt {
namespace {

using V1 = Vec<Scalar, 1>;
using V8 = Vec<Ymm, 1>;
using V16 = Vec<Ymm, 2>;

constexpr uint32_t kGroupsAtOnce = 1;    // four chains of two registers: 8 accumulators
constexpr uint32_t kNonzerosAtOnce = 4;  // likewise
constexpr uint32_t kTilesAtOnce = 4;     // likewise
constexpr uint32_t kRowsAtOnce = 4;      // likewise

}  // namespace
}  // namespace tkt

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
