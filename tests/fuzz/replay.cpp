// Runs a fuzz target without libFuzzer: each file given or found in a folder given, then N inputs made from each by the
// target's own mutator. Equal arguments give equal runs. The input at which a run ends is kept as `failed-input`.
#include <stdio.h>

#include <algorithm>
#include <filesystem>

#include <sanitizer/common_interface_defs.h>

#include "container.h"

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
}

namespace {

constexpr size_t kMaxBytes = 1u << 16;

fuzz::Random g_random(1);
fuzz::Bytes g_input;

void keep_input() {
  if (FILE *file = fopen("failed-input", "wb")) {
    fwrite(g_input.data(), 1, g_input.size(), file);
    fclose(file);
    fprintf(stderr, "the input of %zu bytes is in the file failed-input\n", g_input.size());
  }
}

void run(const fuzz::Bytes &input) {
  g_input = input;
  LLVMFuzzerTestOneInput(g_input.data(), g_input.size());
}

fuzz::Bytes mutated(const fuzz::Bytes &from) {
  fuzz::Bytes made = from;
  made.resize(std::max(kMaxBytes, from.size()));
  const auto mutate = LLVMFuzzerCustomMutator;
  made.resize(mutate ? mutate(made.data(), from.size(), made.size(), g_random.next())
                     : LLVMFuzzerMutate(made.data(), from.size(), made.size()));
  return made;
}

std::vector<std::string> files_of(const std::string &path) {
  if (!std::filesystem::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const auto &entry : std::filesystem::directory_iterator(path)) {
    if (entry.is_regular_file()) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

// Stands for libFuzzer's: some bits, bytes and small numbers.
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size) {
  switch (g_random.below(4)) {
    case 0:
      if (size < max_size) {
        const size_t at = g_random.below(uint32_t(size + 1));
        memmove(data + at + 1, data + at, size - at);
        data[at] = uint8_t(g_random.next());
        return size + 1;
      }
      break;
    case 1:
      if (size > 1) {
        const size_t at = g_random.below(uint32_t(size));
        memmove(data + at, data + at + 1, size - at - 1);
        return size - 1;
      }
      break;
    default: break;
  }
  for (uint32_t changes = 1 + g_random.below(4); size > 0 && changes > 0; --changes) {
    uint8_t *at = data + g_random.below(uint32_t(size));
    *at = g_random.one_in(2) ? uint8_t(g_random.next()) : uint8_t(*at ^ 1u << g_random.below(8));
  }
  return size;
}

int main(int argc, char **argv) {
  unsigned long mutations = 0, inputs = 0, made = 0;
  std::vector<fuzz::Bytes> seeds = {{}};
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--mutations") == 0 && i + 1 < argc) {
      mutations = strtoul(argv[++i], nullptr, 10);
      continue;
    }
    for (const std::string &name : files_of(argv[i])) seeds.push_back(fuzz::read_file(name));
  }
  __sanitizer_set_death_callback(keep_input);
  for (const fuzz::Bytes &seed : seeds) run(seed), ++inputs;
  for (const fuzz::Bytes &seed : seeds) {
    fuzz::Bytes input = seed;
    for (unsigned long i = 0; i < mutations; ++i) {
      input = mutated(i % 8 == 0 ? seed : input);  // up to eight changes deep
      run(input), ++made;
    }
  }
  printf("%s: %lu inputs, %lu mutations of them\n", argv[0], inputs, made);
  return 0;
}
