// One open trainer of Java: a single mapping of pages that holds this head, the arena, and room for one batch on its way
// between Java arrays and the core. Nothing else is allocated until it is closed; refuses nothing, the core does.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "ticket_runtime.h"

namespace tkt_jni {

struct Session {
  tkt_trainer *trainer;
  size_t mapped_bytes;
  float *samples;  // (batch, input_elements)
  void *targets;   // (batch), or floats (batch, class_count)
  float *outputs;  // (batch, class_count)
  uint32_t *rows;  // (batch)
  uint64_t value_count;
  uint32_t input_elements, class_count, target_elements;
  bool has_labels;
};

constexpr uint64_t kAlignment = 64;  // of the arena and of every buffer
constexpr uint64_t aligned(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

inline uint32_t target_elements(const tkt_info &info) { return info.loss == TKT_CROSS_ENTROPY ? 1 : info.class_count; }

// The parts beside the arena, in this order behind it.
struct Transfer {
  uint64_t head, samples, targets, outputs, rows;
  Transfer(const tkt_info &info, uint64_t batch)
      : head(aligned(sizeof(Session))),
        samples(aligned(batch * info.input_elements * sizeof(float))),
        targets(aligned(batch * target_elements(info) * sizeof(float))),
        outputs(aligned(batch * info.class_count * sizeof(float))),
        rows(aligned(batch * sizeof(uint32_t))) {}
  uint64_t total() const { return head + samples + targets + outputs + rows; }
};

// Pages of zeros, or nullptr.
inline void *map_pages(uint64_t bytes) {
  if (bytes > SIZE_MAX) return nullptr;
  void *pages = mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

// A mapping that ends with its block: checkpoints and artifacts on their way from or to a Java array.
class Pages {
 public:
  explicit Pages(uint64_t bytes) : bytes_(bytes > 0 ? bytes : 1), at_(map_pages(bytes_)) {}
  Pages(const Pages &) = delete;
  Pages &operator=(const Pages &) = delete;
  ~Pages() {
    if (at_) munmap(at_, size_t(bytes_));
  }
  void *get() const { return at_; }

 private:
  uint64_t bytes_;
  void *at_;
};

// The session in fresh pages, its trainer not yet opened, or nullptr.
inline Session *map_session(const tkt_info &info, uint64_t batch, uint64_t arena_bytes, void **arena) {
  const Transfer parts(info, batch);
  const uint64_t bytes = parts.total() + aligned(arena_bytes);
  uint8_t *at = static_cast<uint8_t *>(map_pages(bytes));
  if (!at) return nullptr;
  Session *session = reinterpret_cast<Session *>(at);
  *arena = at += parts.head;
  session->samples = reinterpret_cast<float *>(at += aligned(arena_bytes));
  session->targets = at += parts.samples;
  session->outputs = reinterpret_cast<float *>(at += parts.targets);
  session->rows = reinterpret_cast<uint32_t *>(at += parts.outputs);
  session->mapped_bytes = size_t(bytes);
  session->value_count = info.value_count;
  session->input_elements = info.input_elements;
  session->class_count = info.class_count;
  session->target_elements = target_elements(info);
  session->has_labels = info.loss == TKT_CROSS_ENTROPY;
  return session;
}

inline void unmap(Session *session) { munmap(session, session->mapped_bytes); }

}  // namespace tkt_jni
