// A packed pattern (FORMAT.md, PACKED_PATTERN): an adaptive binary range coder over one bit a place, 1 where PATTERN lists its
// column. One pass, integers alone, 250 bytes of state; whatever the bytes are, nothing is written outside the pattern.
#include "core/artifact_parts.h"
#include "core/bytes.h"

namespace tkt {
namespace {

constexpr uint32_t kLongestLine = 1024, kContexts = 19, kCodeBytes = 4;
constexpr uint32_t kMostSeen = 8192;                        // twice the bits on which a probability rests
constexpr uint32_t kLeastShare = 4, kMostShare = 4096 - 4;  // bounds how many bits a byte can hold

// Twice how often each bit was seen, plus 1 (Krichevsky and Trofimov 1981).
struct Seen {
  uint16_t ones, zeros;
};

class RangeDecoder {
 public:
  RangeDecoder(const uint8_t *bytes, const uint8_t *end) : next_(bytes), end_(end) {
    for (uint32_t i = 0; i < kCodeBytes; ++i) take_byte();
  }

  bool take_bit(Seen *seen) {
    const uint32_t total = uint32_t(seen->ones) + seen->zeros, exact = 4096u * seen->ones / total;
    const uint32_t share = exact < kLeastShare ? kLeastShare : exact > kMostShare ? kMostShare : exact;
    const uint32_t bound = (range_ >> 12) * share;
    const bool one = code_ < bound;
    code_ -= one ? 0 : bound;
    range_ = one ? bound : range_ - bound;
    uint16_t &count = one ? seen->ones : seen->zeros;
    count = static_cast<uint16_t>(count + 2);
    if (total + 2 > kMostSeen) {
      seen->ones = static_cast<uint16_t>((seen->ones + 1) / 2);
      seen->zeros = static_cast<uint16_t>((seen->zeros + 1) / 2);
    }
    for (; range_ < 1u << 24; range_ <<= 8) take_byte();
    return one;
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

// The bits of a parameter so far, as far as a context depends on them; before the first one there are zeros.
class History {
 public:
  explicit History(uint32_t line) : line_(line) {}

  uint32_t context() {
    if (line_ != 0) line_before_ = (line_before_ << 1 | bit(at_ + 1 - line_)) & 7;
    if (last_64_ == 0) return kContexts - 1;
    const uint32_t last = static_cast<uint32_t>(last_64_);
    const uint32_t near = (last & 1) + (last >> 1 & 1), diagonal = (line_before_ & 1) + (line_before_ >> 2);
    return 6 * near + 3 * (line_before_ >> 1 & 1) + diagonal;
  }

  void add(bool one) {
    uint32_t &word = ring_[at_ / 32 % kWords];
    word = (word & ~(1u << at_ % 32)) | uint32_t(one) << at_ % 32;
    last_64_ = last_64_ << 1 | uint64_t(one);
    ++at_;
  }

 private:
  static constexpr uint32_t kWords = kLongestLine / 32;

  uint32_t bit(uint32_t at) const { return ring_[at / 32 % kWords] >> at % 32 & 1; }

  const uint32_t line_;
  uint32_t at_ = 0, line_before_ = 0, ring_[kWords] = {};
  uint64_t last_64_ = 0;
};

// False if the bits end, or do not list as many columns as they should.
bool unpack_matrix(const Record &r, uint32_t line, RangeDecoder &bits, uint8_t *pattern, uint32_t *longest_row) {
  uint32_t *row_ptr = reinterpret_cast<uint32_t *>(pattern + r.row_ptr);
  uint8_t *columns = pattern + r.col_idx;
  const uint32_t blocks = r.rows / r.block(), listed = r.columns();
  Seen seen[kContexts];
  for (Seen &s : seen) s = {1, 1};
  History history(line);
  uint32_t found = 0;
  for (uint32_t row = 0; row < blocks; ++row) {
    row_ptr[row] = found;
    for (uint32_t column = 0; column < r.cols && found < listed; ++column) {
      const bool one = bits.take_bit(&seen[history.context()]);
      if (bits.overran()) return false;
      history.add(one);
      if (!one) continue;
      if (r.narrow()) store(columns + 2 * size_t(found), static_cast<uint16_t>(column));
      if (!r.narrow()) store(columns + 4 * size_t(found), column);
      ++found;
    }
    const uint32_t values = r.block() * (found - row_ptr[row]);
    if (r.encoding != kMasked && values > *longest_row) *longest_row = values;
  }
  row_ptr[blocks] = found;
  return found == listed;
}

const uint8_t *lines_of(const Artifact &a) { return a.packed_pattern.data + 4; }

}  // namespace

tkt_status check_packed_head(Artifact *a, uint32_t patterns, tkt_error *error) {
  const uint64_t head = 4 + 2 * uint64_t(patterns);
  bool sound = a->packed_pattern.bytes >= head + kCodeBytes;
  if (sound) a->longest_row = load_u32(a->packed_pattern.data);
  sound = sound && a->longest_row <= a->value_count;
  for (uint32_t i = 0; sound && i < patterns; ++i) {
    const uint32_t line = load_u16(lines_of(*a) + 2 * size_t(i));
    sound = line == 0 || (line >= 2 && line <= kLongestLine);
  }
  return sound ? TKT_OK : corrupt(error, "PACKED_PATTERN has no sound head for ", patterns, " patterns");
}

tkt_status unpack_pattern(Artifact *a, uint8_t *to, tkt_error *error) {
  const uint8_t *line = lines_of(*a), *begin = line;
  for (uint32_t i = 0; i < a->parameter_count; ++i) begin += read_record(a->params, i).encoding == kDense ? 0 : 2;
  RangeDecoder bits(begin, a->packed_pattern.data + a->packed_pattern.bytes);
  uint32_t longest_row = 0;
  for (uint32_t i = 0; i < a->parameter_count; ++i) {
    const Record r = read_record(a->params, i);
    if (r.encoding == kDense) continue;
    if (!unpack_matrix(r, load_u16(line), bits, to, &longest_row)) {
      return corrupt(error, "PACKED_PATTERN does not hold ", r.columns(), " columns for parameter ", i);
    }
    line += 2;
  }
  if (!bits.at_end()) return corrupt(error, "PACKED_PATTERN is longer than what it holds");
  if (longest_row != a->longest_row) {
    return corrupt(error, "PACKED_PATTERN has a row of ", longest_row, " values instead of ", a->longest_row);
  }
  a->pattern.data = to;
  const Values all[] = {a->init, a->trained};
  for (const Values &values : all) {
    if (values.kind == kWhole && values.data && has_pruned_value(*a, values.data)) {
      return corrupt(error, "INIT or TRAINED holds a pruned weight that is not 0");
    }
  }
  return TKT_OK;
}

}  // namespace tkt
