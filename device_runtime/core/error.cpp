// Writes integers, reals (six significant digits) and hex digits; nothing here allocates or depends on a locale.
#include "core/error.h"

#include <stddef.h>

namespace tkt {

// A text that grows to the end of a tkt_error and is always terminated.
class Line {
 public:
  explicit Line(tkt_error *error) : out_(error->text), left_(sizeof error->text - 1) { *out_ = 0; }

  void add(const Part &part) {
    switch (part.kind_) {
      case Part::kText: text(part.text_); break;
      case Part::kSigned: integer(part.signed_); break;
      case Part::kUnsigned: digits(part.unsigned_, 1); break;
      case Part::kReal: real(part.real_); break;
      case Part::kHex: hex(part.hex_); break;
    }
  }

 private:
  void put(char c) {
    if (left_ == 0) return;
    *out_++ = c;
    *out_ = 0;
    --left_;
  }

  void text(const char *from) {
    while (*from) put(*from++);
  }

  void digits(unsigned long long value, int at_least) {
    char reversed[24];
    int count = 0;
    for (; value != 0 || count < at_least; value /= 10) reversed[count++] = static_cast<char>('0' + value % 10);
    while (count > 0) put(reversed[--count]);
  }

  void integer(long long value) {
    if (value < 0) put('-');
    digits(value < 0 ? 0ULL - static_cast<unsigned long long>(value) : static_cast<unsigned long long>(value), 1);
  }

  void real(double value) {
    if (value != value) return text("NaN");
    if (value < 0) put('-');
    if (value < 0) value = -value;
    if (value > 1.7e308) return text("infinity");
    int exponent = 0;
    if (value >= 1e6 || (value != 0 && value < 1e-4)) {
      for (; value >= 10; ++exponent) value /= 10;
      for (; value < 1; --exponent) value *= 10;
      if (value >= 9.9999995) value = 1, ++exponent;  // or it would be written as 10
    }
    fixed(value);
    if (exponent != 0) put('e');
    if (exponent != 0) integer(exponent);
  }

  // Up to six decimals, without zeros at the end.
  void fixed(double value) {
    unsigned long long scaled = static_cast<unsigned long long>(value * 1e6 + 0.5);
    digits(scaled / 1000000, 1);
    unsigned long long decimals = scaled % 1000000;
    if (decimals == 0) return;
    int places = 6;
    for (; decimals % 10 == 0; --places) decimals /= 10;
    put('.');
    digits(decimals, places);
  }

  void hex(Hex value) {
    for (uint32_t i = 0; i < value.count; ++i) {
      put("0123456789abcdef"[value.bytes[i] >> 4]);
      put("0123456789abcdef"[value.bytes[i] & 15]);
    }
  }

  char *out_;
  size_t left_;
};

tkt_status fail_with(tkt_error *error, tkt_status status, const Part *parts, uint32_t count) {
  if (error == nullptr) return status;
  Line line(error);
  for (uint32_t i = 0; i < count; ++i) line.add(parts[i]);
  return status;
}

const char *status_name(int32_t status) {
  static const char *const names[] = {"OK",
                                      "CorruptArtifact",
                                      "IncompatibleArtifact",
                                      "UnsupportedOp",
                                      "CorruptCheckpoint",
                                      "BudgetExceeded",
                                      "NonFiniteLoss",
                                      "InvalidInput"};
  return status >= 0 && status < 8 ? names[status] : "UnknownStatus";
}

}  // namespace tkt
