// The kernels compiled for AVX-512F; the build gives this file alone its instruction set.
#if defined(__AVX512F__)
#include "core/registers_avx512.h"

namespace tkt {
namespace {

using V1 = Vec<Scalar, 1>;
using V8 = Vec<Ymm, 1>;

constexpr uint32_t kGroupsAtOnce = 2;     // four chains of two groups: 8 accumulators
constexpr uint32_t kNonzerosAtOnce = 16;  // 16 accumulators
constexpr uint32_t kTilesAtOnce = 16;     // likewise
constexpr uint32_t kRowsAtOnce = 8;       // of two groups: 16 accumulators

}  // namespace
}  // namespace tkt

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
