// What the fuzz targets share: memory of exactly the size it should have, so that a sanitizer sees one byte too much,
// checks that end the process, and the tickets to begin with. Uses the C interface alone.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ticket_runtime.h"

// The statement is an invariant of ticket_runtime.h or FORMAT.md; where it does not hold, the run ends as a finding.
#define REQUIRE(condition) ((condition) ? void(0) : fuzz::fail(__FILE__, __LINE__, #condition))

namespace fuzz {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kMaxArena = 1u << 18;  // larger ones are only counted
constexpr double kMaxCheckSeconds = 0.5;  // of a call that only reads an artifact, whatever it holds

[[noreturn]] void fail(const char *file, int line, const char *condition);

// Heap memory of exactly `count` T, at an address divisible by 8 and, if `odd`, not by 16.
template <typename T>
class Exact {
 public:
  Exact() = default;
  explicit Exact(size_t count, bool odd = false)
      : skipped_(odd ? 8 : 0), count_(count), memory_(static_cast<uint8_t *>(malloc(skipped_ + count * sizeof(T)))) {
    REQUIRE(memory_ != nullptr);
    memset(memory_.get() + skipped_, 0xFF, bytes());
  }
  explicit Exact(const std::vector<T> &from, bool odd = false) : Exact(from.size(), odd) {
    if (!from.empty()) memcpy(get(), from.data(), bytes());
  }

  T *get() const { return reinterpret_cast<T *>(memory_.get() + skipped_); }
  T &operator[](size_t index) const { return get()[index]; }
  size_t size() const { return count_; }
  size_t bytes() const { return count_ * sizeof(T); }

 private:
  struct Free {
    void operator()(uint8_t *memory) const { free(memory); }
  };
  size_t skipped_ = 0, count_ = 0;
  std::unique_ptr<uint8_t, Free> memory_;
};

// Of the thread; a busy machine does not count.
class CpuTime {
 public:
  CpuTime();
  double seconds() const;

 private:
  double start_;
};

// A small generator of its own, so that a run depends on nothing but its input.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2 + 1) {}
  uint32_t next();
  uint32_t below(uint32_t limit) { return next() % limit; }  // limit >= 1
  bool one_in(uint32_t times) { return below(times) == 0; }

 private:
  uint64_t state_;
};

template <typename Struct>
Struct sized() {
  Struct made = {};
  made.struct_bytes = sizeof made;
  return made;
}

// A status and its text are as the header says; returns whether it is TKT_OK.
bool check_status(tkt_status status, const tkt_error *error);

// A trainer in memory of exactly its size.
struct Trainer {
  Exact<uint8_t> artifact, arena;
  tkt_info info = {};
  tkt_options options = {};
  tkt_trainer *at = nullptr;

  Trainer() = default;
  Trainer(Trainer &&other) noexcept
      : artifact(std::move(other.artifact)),
        arena(std::move(other.arena)),
        info(other.info),
        options(other.options),
        at(std::exchange(other.at, nullptr)) {}
  ~Trainer() { tkt_close(at); }

  // False if refused or larger than kMaxArena. Before, the arena holds bytes that are NaN as floats.
  bool open(const Exact<uint8_t> &file, const tkt_options &with, bool odd);

  // A call that failed may have changed values: plain SGD, which keeps no gradients, reports one that overflowed too late.
  bool may_change(tkt_status status) const {
    return status == TKT_OK || (status == TKT_NON_FINITE_LOSS && tkt_gradients(at) == nullptr);
  }

  bool save(Bytes *checkpoint) const;  // false if a value is not finite
  bool any_nan() const;
};

// Values and progress, which a call that fails must not change.
class Snapshot {
 public:
  explicit Snapshot(const Trainer &trainer);
  bool operator==(const Snapshot &other) const;

 private:
  std::vector<float> values_;
  tkt_progress progress_;
};

// 32-bit words of targets for `count` samples: a label each, or a float an output.
size_t target_words(const tkt_info &info, uint32_t count);

// Samples and targets that fit a network; `whole`: numbers that an embedding can take.
struct Data {
  Exact<float> samples;
  Exact<uint32_t> targets;

  Data(const tkt_info &info, uint32_t count, bool whole, Random &random);
};

Bytes read_file(const std::string &path);

// Those of make_seeds.py, in the folder that the build names, by name.
const std::vector<Bytes> &seed_artifacts();

}  // namespace fuzz
