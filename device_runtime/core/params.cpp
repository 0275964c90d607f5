// PARAMS and PATTERN: each pattern lies exactly where the rules put it, and every index is inside its matrix; of a packed one
// only where it will lie (unpack.cpp).
#include "core/artifact_parts.h"
#include "core/bytes.h"

namespace tkt {
namespace {

constexpr uint32_t kHeadBytes = 8, kRecordBytes = 24;
constexpr uint64_t kMaxElements = 1u << 28;

// Moves `end` behind an array of `bytes` bytes that MUST begin at `at`, the next multiple of 4.
bool take_array(const Section &pattern, uint32_t at, uint64_t bytes, uint64_t *end) {
  uint64_t start = round_up(*end, 4);
  if (at != start || start > pattern.bytes || bytes > pattern.bytes - start) return false;
  if (pattern.data && !all_zero(pattern.data + *end, start - *end)) return false;
  *end = start + bytes;
  return true;
}

template <typename Column>
bool rows_are_sorted(const Record &r, const uint8_t *rows, const uint8_t *sorted) {
  const uint32_t *row_ptr = reinterpret_cast<const uint32_t *>(rows);
  const Column *columns = reinterpret_cast<const Column *>(sorted);
  const uint32_t blocks = r.rows / r.block(), count = r.columns();
  if (row_ptr[0] != 0 || row_ptr[blocks] != count) return false;
  for (uint32_t b = 0; b < blocks; ++b) {
    uint32_t begin = row_ptr[b], end = row_ptr[b + 1];
    if (begin > end || end > count) return false;
    for (uint32_t k = begin; k < end; ++k) {
      if (columns[k] >= r.cols || (k > begin && columns[k] <= columns[k - 1])) return false;
    }
  }
  return true;
}

tkt_status check_sparse(const Artifact &a, uint32_t param, const Record &r, uint64_t *end, tkt_error *error) {
  const uint64_t block = r.block(), width = r.width();
  if (r.rows % block != 0 || r.nnz % block != 0) {
    return corrupt(error, "parameter ", param, " has ", r.nnz, " values in ", r.rows, " rows, which are not blocks of ",
                   block);
  }
  if (r.nnz < 1 || r.nnz > r.elements() || (r.width() == 2 && r.cols > 65536)) {
    return corrupt(error, "parameter ", param, " has ", r.nnz, " live weights of (", r.rows, ", ", r.cols,
                   "), which may not be");
  }
  bool placed = take_array(a.pattern, r.row_ptr, 4 * (r.rows / block + 1), end) &&
                take_array(a.pattern, r.col_idx, width * r.columns(), end);
  if (!placed) return corrupt(error, "parameter ", param, ": its pattern is not where PATTERN must have it");
  if (a.pattern.data == nullptr) return TKT_OK;  // packed
  const uint8_t *rows = a.pattern.data + r.row_ptr, *columns = a.pattern.data + r.col_idx;
  const bool sound =
      width == 2 ? rows_are_sorted<uint16_t>(r, rows, columns) : rows_are_sorted<uint32_t>(r, rows, columns);
  return sound ? TKT_OK : corrupt(error, "parameter ", param, ": its rows or columns are not in order");
}

tkt_status check_param(const Artifact &a, uint32_t param, uint64_t *end, tkt_error *error) {
  Record r = read_record(a.params, param);
  const uint64_t elements = r.elements();
  if (r.rows < 1 || r.cols < 1 || elements > kMaxElements || r.encoding > kMasked) {
    return corrupt(error, "parameter ", param, " has encoding ", r.encoding, " and shape (", r.rows, ", ", r.cols,
                   "), which may not be");
  }
  if (r.encoding != kDense) return check_sparse(a, param, r, end, error);
  if (r.nnz == elements && r.row_ptr == 0 && r.col_idx == 0) return TKT_OK;
  return corrupt(error, "dense parameter ", param, " has ", r.nnz, " values for shape (", r.rows, ", ", r.cols, ")");
}

}  // namespace

Record read_record(const Section &params, uint32_t param) {
  Record record;
  memcpy(&record, params.data + kHeadBytes + kRecordBytes * size_t(param), sizeof record);
  return record;
}

Matrix Artifact::matrix(uint32_t param) const {
  const Record r = read_record(params, param);
  const bool masked = r.encoding == kMasked, sparse = !masked && r.encoding != kDense;
  Matrix m = {r.rows, r.cols, r.stored(), r.block(), sparse, masked, nullptr, nullptr, nullptr, nullptr};
  if (r.encoding == kDense || pattern.data == nullptr) return m;
  const uint8_t *columns = pattern.data + r.col_idx;  // right behind row_ptr
  (masked ? m.pruned : m.row_ptr) = reinterpret_cast<const uint32_t *>(pattern.data + r.row_ptr);
  if (masked) return m;
  if (r.width() == 2) m.columns16 = reinterpret_cast<const uint16_t *>(columns);
  if (r.width() == 4) m.columns32 = reinterpret_cast<const uint32_t *>(columns);
  return m;
}

tkt_status read_params(Artifact *artifact, tkt_error *error) {
  Artifact &a = *artifact;
  a.params = a.file.find(kParams);
  a.pattern = a.file.find(kPattern);
  a.packed_pattern = a.file.find(kPackedPattern);
  const bool packed = a.packed_pattern.data != nullptr;
  a.longest_row = 0;
  a.lines = nullptr;
  if (packed) a.pattern.bytes = kMaxFileBytes;
  if (a.params.bytes < kHeadBytes) return corrupt(error, "PARAMS has ", a.params.bytes, " bytes, too few");
  a.parameter_count = load_u32(a.params.data);
  if (a.parameter_count > kMaxParameters && a.parameter_count <= kFormatParameters) {
    return too_large(error, "parameters", a.parameter_count, kMaxParameters, "TKT_MAX_PARAMETERS");
  }
  if (a.parameter_count < 1 || a.parameter_count > kMaxParameters || load_u32(a.params.data + 4) != 0 ||
      a.params.bytes != kHeadBytes + kRecordBytes * a.parameter_count) {
    return corrupt(error, "PARAMS has ", a.params.bytes, " bytes and says ", a.parameter_count, " parameters");
  }
  uint64_t end = 0, values = 0, live = 0, patterns = 0;
  a.dense_count = a.pruned_layer_live = a.pruned_layer_weights = 0;
  for (uint32_t param = 0; param < a.parameter_count; ++param) {
    if (tkt_status status = check_param(a, param, &end, error)) return status;
    const Record r = read_record(a.params, param);
    const uint64_t elements = r.elements();
    values += r.stored();
    live += r.nnz;
    patterns += r.encoding != kDense;
    a.dense_count += elements;
    a.pruned_layer_live += r.encoding == kDense ? 0 : r.nnz;
    a.pruned_layer_weights += r.encoding == kDense ? 0 : elements;
  }
  if (packed) a.pattern.bytes = static_cast<uint32_t>(end);
  if (end != a.pattern.bytes) return corrupt(error, "PATTERN has ", a.pattern.bytes, " bytes, but ", end, " are used");
  if (values > kMaxFileBytes / 4) return corrupt(error, "the parameters have ", values, " values, too many for a file");
  a.value_count = static_cast<uint32_t>(values);
  a.live_count = static_cast<uint32_t>(live);
  return packed ? check_packed_head(&a, static_cast<uint32_t>(patterns), error) : TKT_OK;
}

}  // namespace tkt
