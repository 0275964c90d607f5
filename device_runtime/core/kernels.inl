// The kernels over the vector types that the including file has defined for its instruction set: V1, V8 and V16, with
// kGroupsAtOnce, kNonzerosAtOnce, kTilesAtOnce and kRowsAtOnce, as many as its registers hold of sixteen lanes. FORMAT.md, "Arithmetic",
// fixes every operation and its order; nothing here may be reassociated. Everything has internal linkage: code compiled
// for one instruction set must never be shared with another file by the linker.
#include "core/kernels.h"
#include "core/math.h"
#include "core/unroll.h"

namespace tkt {
namespace {

// In this order: each has what the next ones share.
#include "core/kernels_shared.inl"

#include "core/kernels_linear.inl"

#include "core/kernels_conv.inl"
#include "core/kernels_elementwise.inl"
#include "core/kernels_input.inl"
#include "core/kernels_norm.inl"
#include "core/kernels_pool.inl"

template <typename V>
constexpr LaneKernels lane_kernels() {
  constexpr bool kScatters = V::kLanes == 1;
  return {V::kLanes,
          ingest<V>,
          product<V>,
          kScatters ? nullptr : transposed_product<V>,
          kScatters ? nullptr : dense_transposed_product<V>,
          kScatters ? scatter_product<V> : nullptr,
          weight_gradient<V>,
          correlate<V>,
          kScatters ? scatter_correlation<V> : nullptr,
          correlation_gradient<V>,
          channel_sums<V>,
          sum<V>,
          deviations<V>,
          sum_of_products<V>,
          max_pool<V>,
          max_pool_gradient<V>,
          average_pool<V>,
          average_pool_gradient<V>,
          global_average<V>,
          global_average_gradient<V>,
          layer_norm<V>,
          layer_norm_gradient<V>,
          layer_norm_sums<V>,
          softmax<V>};
}

constexpr Kernels kernels_named(uint32_t name) {
  return {name,
          {lane_kernels<V1>(), lane_kernels<V8>(), lane_kernels<V16>()},
          {unary<Relu>(), unary<LeakyRelu>(), unary<Relu6>(), unary<Hardswish>(), unary<Sigmoid>(), unary<Tanh>(),
           unary<Gelu>(), unary<GeluTanh>()},
          add_arrays,
          multiply_arrays,
          scale_channel,
          scale_channel_gradient,
          scale,
          halve,
          expand,
          array_is_finite,
          sgd,
          adam};
}

}  // namespace
}  // namespace tkt
