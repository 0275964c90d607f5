// Hands out the caller's memory, once and in one order. Over no memory it only counts: one code path then both sizes and
// lays out a trainer, so that the size is exact.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/bytes.h"

namespace tkt {

constexpr uint64_t kArenaAlignment = 64;  // of every array, for aligned vector loads
constexpr uint64_t kCallerAlignment = 8;  // of what the caller gives

enum MemoryPart { kValues, kGradients, kOptimizer, kActivations, kIndex, kBookkeeping, kMemoryParts };

class Arena {
 public:
  Arena() { used_[kBookkeeping] = kArenaAlignment - kCallerAlignment; }  // what aligning the start may cost

  explicit Arena(void *memory) : Arena() {
    uintptr_t start = reinterpret_cast<uintptr_t>(memory);
    next_ = static_cast<uint8_t *>(memory) + (round_up(start, kArenaAlignment) - start);
  }

  bool counting() const { return next_ == nullptr; }

  // Room for `count` T, all bytes 0; nullptr while counting. What rounding up costs is bookkeeping.
  template <typename T>
  T *take(MemoryPart part, uint64_t count) {
    uint64_t bytes = count * sizeof(T), rounded = round_up(bytes, kArenaAlignment);
    used_[part] += bytes;
    used_[kBookkeeping] += rounded - bytes;
    if (counting()) return nullptr;
    uint8_t *taken = next_;
    memset(taken, 0, static_cast<size_t>(rounded));
    next_ += rounded;
    return reinterpret_cast<T *>(taken);
  }

  uint64_t used(MemoryPart part) const { return used_[part]; }
  uint64_t total() const {
    uint64_t sum = 0;
    for (uint64_t part : used_) sum += part;
    return sum;
  }

 private:
  uint8_t *next_ = nullptr;
  uint64_t used_[kMemoryParts] = {};
};

}  // namespace tkt
