// Runs one node of a trainer by itself, forward or backward, and measures what the processor can do at best: fused
// multiply-adds from registers, and from the first cache. The node's functions are those of the product, called as a
// training step calls them.
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>

#include "core/step.h"
#include "core/trainer.h"
#include "ticket_runtime.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

struct Probe {
  std::unique_ptr<uint64_t[]> artifact;
  std::unique_ptr<uint64_t[]> arena;
  tkt_trainer *trainer = nullptr;
};

thread_local std::string g_error;

template <typename Run>
double nanoseconds(uint64_t count, Run run) {
  double best = 1e30;
  for (int round = 0; round < 20; ++round) {
    const auto start = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double, std::nano> passed = std::chrono::steady_clock::now() - start;
    best = passed.count() / double(count) < best ? passed.count() / double(count) : best;
  }
  return best;
}

#if defined(__x86_64__)
constexpr int kRounds = 20000, kChains = 12;
constexpr size_t kFloats = 4096;  // 16 kB: inside every first cache

#define PROBE(NAME, TARGET, VECTOR, LANES, SET1, LOAD, FMADD)                                                     \
  __attribute__((target(TARGET))) double NAME(bool memory) {                                                      \
    alignas(64) static float data[kFloats];                                                                       \
    static volatile float sink;                                                                                   \
    return nanoseconds(uint64_t(kRounds) * kChains, [&]() __attribute__((target(TARGET))) {                       \
      VECTOR a[kChains], b = SET1(0.5f), c = SET1(0.25f);                                                         \
      for (VECTOR & chain : a) chain = c;                                                                         \
      for (int round = 0; round < kRounds; ++round) {                                                             \
        const float *from = data + size_t(round) * kChains * LANES % (kFloats - kChains * LANES) / LANES * LANES; \
        _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) {                                              \
          a[i] = FMADD(memory ? LOAD(from + i * LANES) : b, c, a[i]);                                             \
        }                                                                                                         \
      }                                                                                                           \
      VECTOR sum = a[0];                                                                                          \
      for (int i = 1; i < kChains; ++i) sum = FMADD(sum, b, a[i]);                                                \
      sink = sum[0];                                                                                              \
    });                                                                                                           \
  }

PROBE(fma_avx512, "avx512f", __m512, 16, _mm512_set1_ps, _mm512_load_ps, _mm512_fmadd_ps)
PROBE(fma_avx2, "avx2,fma", __m256, 8, _mm256_set1_ps, _mm256_load_ps, _mm256_fmadd_ps)
#endif

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char *probe_error() { return g_error.c_str(); }

// A trainer after one training step's forward and backward pass; nullptr and probe_error() if there can be none.
EXPORT void *probe_open(const void *artifact, size_t bytes, uint32_t batch, uint32_t kernels, const float *samples,
                        const int32_t *labels) {
  auto probe = std::make_unique<Probe>();
  tkt_error error = {};
  tkt_options options = {};
  options.struct_bytes = sizeof options;
  uint64_t arena_bytes = 0;
  probe->artifact.reset(new uint64_t[bytes / 8 + 1]);
  std::memcpy(probe->artifact.get(), artifact, bytes);
  tkt_status status = tkt_default_options(probe->artifact.get(), bytes, &options, &error);
  options.batch = batch;
  options.kernels = kernels;
  options.store_gradients = 1;
  if (status == TKT_OK) status = tkt_arena_bytes(probe->artifact.get(), bytes, &options, &arena_bytes, &error);
  if (status == TKT_OK) {
    probe->arena.reset(new uint64_t[arena_bytes / 8 + 1]);
    status = tkt_open(probe->artifact.get(), bytes, &options, probe->arena.get(), arena_bytes, &probe->trainer, &error);
  }
  float loss = 0;
  if (status == TKT_OK) status = tkt_compute_gradients(probe->trainer, samples, labels, batch, &loss, &error);
  g_error = error.text;
  return status == TKT_OK ? probe.release() : nullptr;
}

EXPORT void probe_close(void *probe) { delete static_cast<Probe *>(probe); }

EXPORT void probe_forward(void *probe, uint32_t node) {
  tkt_trainer &trainer = *static_cast<Probe *>(probe)->trainer;
  trainer.nodes[node].op->forward(trainer, trainer.nodes[node]);
}

EXPORT void probe_backward(void *probe, uint32_t node) {
  tkt_trainer &trainer = *static_cast<Probe *>(probe)->trainer;
  for (uint32_t i = 0; i < trainer.nodes[node].input_count; ++i) {
    trainer.buffers[trainer.nodes[node].inputs[i]].gradient_written = false;
  }
  trainer.nodes[node].op->backward(trainer, trainer.nodes[node]);
}

// Nanoseconds of one vector's fused multiply-add, at best; 0 where it is not known how.
EXPORT double probe_fma(uint32_t kernels, int from_memory) {
#if defined(__x86_64__)
  if (kernels == TKT_KERNELS_AVX512) return fma_avx512(from_memory != 0);
  if (kernels == TKT_KERNELS_AVX2) return fma_avx2(from_memory != 0);
#endif
  (void)kernels, (void)from_memory;
  return 0;
}
