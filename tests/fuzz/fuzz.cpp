#include "fuzz.h"

#include <stdio.h>
#include <time.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace fuzz {
namespace {

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

}  // namespace

void fail(const char *file, int line, const char *condition) {
  fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, condition);
  abort();
}

CpuTime::CpuTime() : start_(cpu_seconds()) {}

double CpuTime::seconds() const { return cpu_seconds() - start_; }

uint32_t Random::next() {
  state_ = state_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<uint32_t>(state_ >> 33);
}

bool check_status(tkt_status status, const tkt_error *error) {
  REQUIRE(status >= TKT_OK && status <= TKT_INVALID_INPUT);
  if (status == TKT_OK || error == nullptr) return status == TKT_OK;
  size_t length = strnlen(error->text, sizeof error->text);
  REQUIRE(length > 0 && length < sizeof error->text);
  REQUIRE(memchr(error->text, '\n', length) == nullptr);
  return false;
}

bool Trainer::open(const Exact<uint8_t> &file, const tkt_options &with, bool odd) {
  uint64_t bytes = 0;
  tkt_error error = {};
  options = with;
  tkt_close(at);
  at = nullptr;
  artifact = Exact<uint8_t>(Bytes(file.get(), file.get() + file.size()), odd);
  info = sized<tkt_info>();
  if (!check_status(tkt_inspect(artifact.get(), artifact.size(), &info, &error), &error)) return false;
  tkt_status status = tkt_arena_bytes(artifact.get(), artifact.size(), &options, &bytes, &error);
  if (!check_status(status, &error) || bytes > kMaxArena) return false;
  Exact<uint8_t> small(size_t(bytes) - 1, odd);
  status = tkt_open(artifact.get(), artifact.size(), &options, small.get(), small.size(), &at, &error);
  REQUIRE(status == TKT_BUDGET_EXCEEDED && at == nullptr);
  arena = Exact<uint8_t>(size_t(bytes), odd);
  status = tkt_open(artifact.get(), artifact.size(), &options, arena.get(), arena.size(), &at, &error);
  return check_status(status, &error);
}

bool Trainer::save(Bytes *checkpoint) const {
  tkt_error error = {};
  Exact<uint8_t> file(size_t(tkt_checkpoint_bytes(at)));
  tkt_status status = tkt_save(at, file.get(), file.size(), &error);
  REQUIRE(status == TKT_OK || status == TKT_NON_FINITE_LOSS);
  checkpoint->assign(file.get(), file.get() + file.size());
  return check_status(status, &error);
}

bool Trainer::any_nan() const {
  const float *values = tkt_values(at);
  return std::any_of(values, values + info.value_count, [](float value) { return value != value; });
}

Snapshot::Snapshot(const Trainer &trainer)
    : values_(tkt_values(trainer.at), tkt_values(trainer.at) + trainer.info.value_count),
      progress_(sized<tkt_progress>()) {
  REQUIRE(tkt_get_progress(trainer.at, &progress_, nullptr) == TKT_OK);
}

bool Snapshot::operator==(const Snapshot &other) const {
  return values_.size() == other.values_.size() && memcmp(&progress_, &other.progress_, sizeof progress_) == 0 &&
         memcmp(values_.data(), other.values_.data(), values_.size() * sizeof(float)) == 0;
}

size_t target_words(const tkt_info &info, uint32_t count) {
  return size_t(count) * (info.loss == TKT_CROSS_ENTROPY ? 1 : info.class_count);
}

Data::Data(const tkt_info &info, uint32_t count, bool whole, Random &random)
    : samples(size_t(count) * info.input_elements), targets(target_words(info, count)) {
  const uint32_t limits[] = {4, 4, 12, 300}, limit = limits[random.below(4)];
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i] = whole ? float(random.below(limit)) : (float(random.below(2001)) - 1000.0f) / 500.0f;
  }
  for (size_t i = 0; i < targets.size(); ++i) {
    const float share = float(random.below(101)) / 100.0f;
    targets[i] = random.below(info.class_count);
    if (info.loss != TKT_CROSS_ENTROPY) memcpy(&targets[i], &share, sizeof share);
  }
}

Bytes read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path.c_str(), 0, "the file can be read");
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

const std::vector<Bytes> &seed_artifacts() {
  static const std::vector<Bytes> artifacts = [] {
    std::vector<std::string> names;
    const char *const folder = TKT_FUZZ_SEEDS "/artifact";
    if (!std::filesystem::is_directory(folder)) {
      fail(folder, 0, "the seeds are there; write them by `python -m tests.fuzz.make_seeds " TKT_FUZZ_SEEDS "`");
    }
    for (const auto &entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().string());
    std::sort(names.begin(), names.end());
    std::vector<Bytes> read;
    for (const std::string &name : names) read.push_back(read_file(name));
    REQUIRE(!read.empty());
    return read;
  }();
  return artifacts;
}

}  // namespace fuzz
