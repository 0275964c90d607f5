// What every call of the binding shares: a status other than TKT_OK thrown as CoreError with the core's text, and the
// facts of an artifact that a trainer needs too.
#pragma once

#include <exception>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>

#include "ticket_runtime.h"

namespace tkt_python {

namespace nb = nanobind;

struct CoreError : std::exception {
  tkt_status status;
  std::string text;
  CoreError(tkt_status status, std::string text) : status(status), text(std::move(text)) {}
};

inline void check(tkt_status status, const tkt_error &error) {
  if (status != TKT_OK) throw CoreError(status, error.text);
}

[[noreturn]] inline void refuse(std::string text) { throw CoreError(TKT_INVALID_INPUT, std::move(text)); }

inline tkt_info read_info(const nb::bytes &artifact) {
  tkt_info info{};
  info.struct_bytes = sizeof info;
  tkt_error error{};
  check(tkt_inspect(artifact.data(), artifact.size(), &info, &error), error);
  return info;
}

inline uint64_t arena_bytes(const nb::bytes &artifact, const tkt_options &options) {
  uint64_t bytes = 0;
  tkt_error error{};
  check(tkt_arena_bytes(artifact.data(), artifact.size(), &options, &bytes, &error), error);
  return bytes;
}

}  // namespace tkt_python
