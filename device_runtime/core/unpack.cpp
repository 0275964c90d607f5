// A packed pattern (FORMAT.md, PACKED_PATTERN): an adaptive binary range coder over one bit a place, 1 where PATTERN lists its
// column. One pass, integers alone, a kilobyte of stack; whatever the bytes are, nothing is written outside the pattern.
#include "core/artifact_parts.h"
#include "core/bytes.h"

namespace tkt {
namespace {

constexpr uint32_t kContexts = 19, kFar = 64, kRemembered = 1024, kLongestLine = kRemembered - 1, kCodeBytes = 4;
constexpr uint32_t kMostSeen = 8192;                        // twice the bits on which a share rests
constexpr uint32_t kLeastShare = 4, kMostShare = 4096 - 4;  // bounds how many bits a byte can hold
const char *const kName = "PACKED_PATTERN", *const kNotSound = " does not hold the patterns that PARAMS announces";

class RangeDecoder {
 public:
  explicit RangeDecoder(const Section &code) : next_(code.data), end_(code.data + code.bytes) {
    for (uint32_t i = 0; i < kCodeBytes; ++i) take_byte();
  }

  // `seen`: twice how often 0 and 1 were, plus 1 (Krichevsky and Trofimov 1981).
  uint32_t take_bit(uint16_t *seen) {
    const uint32_t total = uint32_t(seen[0]) + seen[1], exact = 4096u * seen[1] / total;
    const uint32_t share = exact < kLeastShare ? kLeastShare : exact > kMostShare ? kMostShare : exact;
    const uint32_t bound = (range_ >> 12) * share, bit = code_ < bound;
    code_ -= bit ? 0 : bound;
    range_ = bit ? bound : range_ - bound;
    seen[bit] = static_cast<uint16_t>(seen[bit] + 2);
    for (uint32_t i = 0; i < 2 && total + 2 > kMostSeen; ++i) seen[i] = static_cast<uint16_t>((seen[i] + 1) / 2);
    for (; range_ < 1u << 24; range_ <<= 8) take_byte();
    return bit;
  }

  bool overran() const { return overran_; }
  bool at_end() const { return next_ == end_ && !overran_; }

 private:
  void take_byte() {
    overran_ |= next_ == end_;
    code_ = code_ << 8 | (next_ == end_ ? 0u : *next_++);
  }

  const uint8_t *next_, *const end_;
  uint32_t code_ = 0, range_ = 0xFFFFFFFFu;
  bool overran_ = false;
};

// False if the code ends, or does not list as many columns as it should.
bool unpack_matrix(const Record &r, uint32_t line, RangeDecoder &code, uint8_t *pattern, uint32_t *longest_row) {
  uint32_t *row_ptr = reinterpret_cast<uint32_t *>(pattern + r.row_ptr);
  uint8_t *columns = pattern + r.col_idx;
  const uint32_t blocks = r.rows / r.block(), listed = r.columns();
  uint8_t bits[kRemembered] = {};  // the last ones; before the first there are zeros
  uint16_t seen[2 * kContexts];
  for (uint16_t &count : seen) count = 1;
  const auto back = [&](uint32_t at, uint32_t places) -> uint32_t { return bits[(at - places) % kRemembered]; };
  uint32_t found = 0, zeros = kFar;
  for (uint32_t row = 0, at = 0; row < blocks; ++row) {
    row_ptr[row] = found;
    for (uint32_t column = 0; column < r.cols && found < listed; ++column, ++at) {
      uint32_t context = 6 * (back(at, 1) + back(at, 2));
      if (line != 0) context += 3 * back(at, line) + back(at, line - 1) + back(at, line + 1);
      const uint32_t bit = code.take_bit(seen + 2 * (zeros < kFar ? context : kContexts - 1));
      if (code.overran()) return false;
      bits[at % kRemembered] = static_cast<uint8_t>(bit);
      ++zeros;
      if (bit == 0) continue;
      zeros = 0;
      memcpy(columns, &column, r.width());  // little-endian
      columns += r.width();
      ++found;
    }
    const uint32_t values = r.block() * (found - row_ptr[row]);
    if (r.encoding != kMasked && values > *longest_row) *longest_row = values;
  }
  row_ptr[blocks] = found;
  return found == listed;
}

}  // namespace

tkt_status check_packed_head(Artifact *a, uint32_t patterns, tkt_error *error) {
  Section &packed = a->packed_pattern;
  const uint32_t head = 4 + 2 * patterns;
  if (packed.bytes < head + kCodeBytes) return corrupt(error, kName, " is too short");
  a->longest_row = load_u32(packed.data);
  a->lines = packed.data + 4;
  packed.data += head;
  packed.bytes -= head;
  return a->longest_row <= a->value_count ? TKT_OK : corrupt(error, kName, kNotSound);
}

tkt_status unpack_pattern(Artifact *a, void *to, tkt_error *error) {
  uint8_t *pattern = static_cast<uint8_t *>(to);
  memset(pattern, 0, a->pattern.bytes);  // the padding
  RangeDecoder code(a->packed_pattern);
  const uint8_t *next_line = a->lines;
  uint32_t longest_row = 0;
  bool sound = true;
  for (uint32_t i = 0; sound && i < a->parameter_count; ++i) {
    const Record r = read_record(a->params, i);
    if (r.encoding == kDense) continue;
    const uint32_t line = load_u16(next_line);
    next_line += 2;
    sound = line != 1 && line <= kLongestLine && unpack_matrix(r, line, code, pattern, &longest_row);
  }
  if (!sound || !code.at_end() || longest_row != a->longest_row) {
    return corrupt(error, kName, kNotSound);
  }
  a->pattern.data = pattern;
  if (tkt_status status = check_pruned(*a, a->init, "INIT", error)) return status;
  return check_pruned(*a, a->trained, "TRAINED", error);
}

}  // namespace tkt
