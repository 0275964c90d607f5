#include "container.h"

#include <algorithm>

namespace fuzz {
namespace {

constexpr uint32_t kHeadBytes = 64, kEntryBytes = 16, kMaxParts = 32, kMaxGrowth = 256;
constexpr uint32_t kParams = 5, kInit = 7, kTrained = 8, kPackedInit = 12, kPackedTrained = 13, kPackedHead = 8;
constexpr uint32_t kMasked = 5;  // the encoding whose values are not nnz

struct CrcTable {
  uint32_t entries[256];

  CrcTable() {
    for (uint32_t i = 0; i < 256; ++i) {
      entries[i] = i;
      for (int bit = 0; bit < 8; ++bit) entries[i] = (entries[i] & 1u ? 0xEDB88320u : 0u) ^ entries[i] >> 1;
    }
  }
};

uint32_t crc_of(const uint8_t *bytes, size_t size) {
  static const CrcTable table;
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < size; ++i) crc = table.entries[(crc ^ bytes[i]) & 0xFFu] ^ crc >> 8;
  return crc ^ 0xFFFFFFFFu;
}

uint32_t get_u32(const uint8_t *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

void set_u16(uint8_t *at, uint16_t value) { memcpy(at, &value, sizeof value); }
void set_u32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof value); }

void seal_header(Bytes &file, size_t table_end) {
  set_u32(file.data() + 20, 0);
  set_u32(file.data() + 20, crc_of(file.data(), table_end));
}

// Numbers on which counts, shapes and floats turn.
uint32_t telling(Random &random) {
  static const uint32_t values[] = {0,          1,          2,          3,          4,          5,          7,
                                    8,          15,         16,         17,         31,         32,         33,
                                    64,         255,        256,        1024,       4096,       4097,       65535,
                                    65536,      65537,      1u << 24,   1u << 28,   0x7FFFFFFF, 0x80000000, 0xFFFFFFFE,
                                    0xFFFFFFFF, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF,
                                    0x00800000, 0x00000001, 0x80000001, 0x3F7FFFFF, 0x7149F2CA};
  return values[random.below(sizeof values / sizeof *values)];
}

// One 32-bit word: a telling number, a neighbour of what it was, or another word of the same part.
void mutate_word(Bytes &body, Random &random) {
  if (body.size() < 4) return;
  const uint32_t words = uint32_t(body.size() / 4);
  uint8_t *at = body.data() + 4 * random.below(words);
  switch (random.below(5)) {
    case 0: set_u32(at, telling(random)); break;
    case 1: set_u32(at, get_u32(at) + (random.one_in(2) ? 1 : 0xFFFFFFFF)); break;
    case 2: set_u32(at, get_u32(body.data() + 4 * random.below(words))); break;
    case 3: at[random.below(4)] = uint8_t(random.below(24)); break;
    default: set_u16(at + 2 * random.below(2), uint16_t(telling(random))); break;
  }
}

void mutate_bytes(Bytes &body) {
  const size_t before = body.size();
  body.resize(before + kMaxGrowth);
  body.resize(LLVMFuzzerMutate(body.data(), before, body.size()));
}

// Words move: a block of them is repeated, taken out, or zeros are put in.
void mutate_blocks(Bytes &body, Random &random) {
  const size_t words = body.size() / 4;
  if (words == 0) return;
  const size_t first = random.below(uint32_t(words));
  const size_t count = std::min<size_t>(1 + random.below(8), words - first);
  Bytes block(body.begin() + long(4 * first), body.begin() + long(4 * (first + count)));
  switch (random.below(3)) {
    case 0: body.erase(body.begin() + long(4 * first), body.begin() + long(4 * (first + count))); break;
    case 1: body.insert(body.begin() + long(4 * random.below(uint32_t(words + 1))), block.begin(), block.end()); break;
    default: body.insert(body.begin() + long(4 * first), 4 * count, 0); break;
  }
}

void mutate_table(File &file, Random &random) {
  const uint32_t at = random.below(uint32_t(file.parts.size()));
  switch (random.below(5)) {
    case 0: file.parts.erase(file.parts.begin() + at); break;
    case 1: file.parts.insert(file.parts.begin() + at, file.parts[at]); break;
    case 2: file.parts[at].kind = random.one_in(2) ? telling(random) : random.below(16); break;
    case 3: file.parts.push_back({0x8000 + random.below(4), Bytes(random.below(9), 7)}); break;
    default: file.head[8 + random.below(kHeadBytes - 8)] ^= uint8_t(1u << random.below(8)); break;
  }
}

// A field of the header or the table that does not fit what follows, under a right checksum.
void mutate_header(Bytes &sealed, uint32_t parts, Random &random) {
  const uint32_t table_end = kHeadBytes + kEntryBytes * parts;
  uint8_t *at = sealed.data() + 8 + 4 * random.below((table_end - 8) / 4);
  if (random.one_in(2)) {
    set_u32(at, telling(random));
  } else {
    set_u32(at, get_u32(at) + random.below(129) - 64);
  }
  seal_header(sealed, table_end);
}

// As many values as PARAMS announces.
void fit_values(File &file) {
  uint64_t values = 0, live = 0;
  for (const Part &part : file.parts) {
    if (part.kind != kParams) continue;
    for (size_t at = 8; at + 24 <= part.body.size(); at += 24) {
      const uint8_t *record = part.body.data() + at;
      const uint64_t elements = uint64_t(get_u32(record + 4)) * get_u32(record + 8);
      values += get_u32(record) == kMasked ? elements : get_u32(record + 12);
      live += get_u32(record + 12);
    }
  }
  if (values > 65536 || live > 65536) return;
  for (Part &part : file.parts) {
    if (part.kind == kInit || part.kind == kTrained) part.body.resize(4 * size_t(values));
    const bool packed = (part.kind == kPackedInit || part.kind == kPackedTrained) && part.body.size() >= kPackedHead;
    if (packed) part.body.resize(kPackedHead + (part.body[0] == 2 ? 2 : 4) * size_t(live));
  }
}

void mutate_parts(File &file, Random &random) {
  for (uint32_t changes = 1 + random.below(3); changes > 0 && !file.parts.empty(); --changes) {
    Bytes &body = file.parts[random.below(uint32_t(file.parts.size()))].body;
    switch (random.below(16)) {
      case 0: mutate_table(file, random); break;
      case 1:
      case 2: mutate_blocks(body, random); break;
      case 3:
      case 4:
      case 5:
      case 6:
      case 7: mutate_bytes(body); break;
      default: mutate_word(body, random); break;
    }
  }
  if (random.one_in(2)) fit_values(file);
}

}  // namespace

bool File::read(const uint8_t *bytes, size_t size) {
  if (size < kHeadBytes) return false;
  const uint32_t count = get_u32(bytes + 16);
  if (count > kMaxParts || kHeadBytes + uint64_t(kEntryBytes) * count > size) return false;
  head.assign(bytes, bytes + kHeadBytes);
  parts.clear();
  for (uint32_t i = 0; i < count; ++i) {
    const uint8_t *entry = bytes + kHeadBytes + kEntryBytes * i;
    const size_t start = std::min<size_t>(get_u32(entry + 4), size);
    const size_t length = std::min<size_t>(get_u32(entry + 8), size - start);
    parts.push_back({get_u32(entry), Bytes(bytes + start, bytes + start + length)});
  }
  return true;
}

Bytes File::sealed() const {
  Bytes out = head;
  const size_t table_end = kHeadBytes + kEntryBytes * parts.size();
  out.resize(table_end);
  for (size_t i = 0; i < parts.size(); ++i) {
    out.resize((out.size() + 63) / 64 * 64);
    uint8_t *entry = out.data() + kHeadBytes + kEntryBytes * i;
    set_u32(entry, parts[i].kind);
    set_u32(entry + 4, uint32_t(out.size()));
    set_u32(entry + 8, uint32_t(parts[i].body.size()));
    set_u32(entry + 12, crc_of(parts[i].body.data(), parts[i].body.size()));
    out.insert(out.end(), parts[i].body.begin(), parts[i].body.end());
  }
  set_u32(out.data() + 12, uint32_t(out.size()));
  set_u32(out.data() + 16, uint32_t(parts.size()));
  seal_header(out, table_end);
  return out;
}

size_t mutate_file(uint8_t *data, size_t size, size_t max_size, uint32_t seed) {
  Random random(seed);
  File file;
  if (random.one_in(32) || !file.read(data, size)) return LLVMFuzzerMutate(data, size, max_size);
  const bool lie = random.one_in(32);
  if (!lie) mutate_parts(file, random);
  Bytes out = file.sealed();
  if (lie) mutate_header(out, uint32_t(file.parts.size()), random);
  if (out.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  memcpy(data, out.data(), out.size());
  return out.size();
}

size_t cross_files(const File &a, const File &b, uint8_t *out, size_t max_size, uint32_t seed) {
  Random random(seed);
  File made = a;
  for (Part &part : made.parts) {
    for (const Part &other : b.parts) {
      if (other.kind == part.kind && random.one_in(3)) part.body = other.body;
    }
  }
  const Bytes bytes = made.sealed();
  if (bytes.size() > max_size) return 0;
  memcpy(out, bytes.data(), bytes.size());
  return bytes.size();
}

}  // namespace fuzz
