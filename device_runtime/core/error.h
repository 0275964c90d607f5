// Error texts without printf: fail(error, status, "labels[", i, "] is ", label, "; ...") writes one line and returns the
// status. A text names the thing, the value and the remedy; what does not fit into tkt_error is cut.
#pragma once

#include <stdint.h>

#include "ticket_runtime.h"

namespace tkt {

// The first `count` bytes as hex digits.
struct Hex {
  const uint8_t *bytes;
  uint32_t count;
};

// One piece of a text.
class Part {
 public:
  Part(const char *text) : kind_(kText), text_(text) {}
  Part(int value) : Part(static_cast<long long>(value)) {}
  Part(long value) : Part(static_cast<long long>(value)) {}
  Part(long long value) : kind_(kSigned), signed_(value) {}
  Part(unsigned value) : Part(static_cast<unsigned long long>(value)) {}
  Part(unsigned long value) : Part(static_cast<unsigned long long>(value)) {}
  Part(unsigned long long value) : kind_(kUnsigned), unsigned_(value) {}
  Part(double value) : kind_(kReal), real_(value) {}
  Part(Hex value) : kind_(kHex), hex_(value) {}

 private:
  friend class Line;
  enum Kind { kText, kSigned, kUnsigned, kReal, kHex } kind_;
  union {
    const char *text_;
    long long signed_;
    unsigned long long unsigned_;
    double real_;
    Hex hex_;
  };
};

tkt_status fail_with(tkt_error *error, tkt_status status, const Part *parts, uint32_t count);

// By value: texts of all lengths are then one type, and most messages one function.
template <typename... Pieces>
tkt_status fail(tkt_error *error, tkt_status status, Pieces... pieces) {
  const Part parts[] = {Part(pieces)...};
  return fail_with(error, status, parts, static_cast<uint32_t>(sizeof...(pieces)));
}

const char *status_name(int32_t status);

}  // namespace tkt
