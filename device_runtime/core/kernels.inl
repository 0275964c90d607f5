// The kernels over one type V16 of sixteen floats, which the including file has defined for its instruction set. FORMAT.md,
// "Arithmetic", fixes every operation and its order; nothing here may be reassociated. Everything has internal linkage:
// code compiled for one instruction set must never be shared with another file by the linker.
#include "core/kernels.h"
#include "core/math.h"
#include "core/unroll.h"

namespace tkt {
namespace {

// Walks the entries of one row of W, or of one column as a row of the transpose: the weight and the element it multiplies
// of the entry `ahead` of the present one.
template <typename Column>
struct SparseRow {
  const float *values;
  const Column *columns;
  V16 weight(uint32_t ahead) const { return V16::broadcast(values[ahead]); }
  size_t source(uint32_t ahead) const { return columns[ahead]; }
  void advance(uint32_t entries) { values += entries, columns += entries; }
};

struct DenseRow {
  const float *values;
  size_t stride, column;
  V16 weight(uint32_t ahead) const { return V16::broadcast(values[ahead * stride]); }
  size_t source(uint32_t ahead) const { return column + ahead; }
  void advance(uint32_t entries) { values += entries * stride, column += entries; }
};

template <typename Column>
struct SparseRows {
  const Matrix &matrix;
  const Column *columns;
  const float *values;
  uint32_t count() const { return matrix.rows; }
  uint32_t entries(uint32_t row) const { return matrix.row_ptr[row + 1] - matrix.row_ptr[row]; }
  SparseRow<Column> row(uint32_t row) const { return {values + matrix.row_ptr[row], columns + matrix.row_ptr[row]}; }
};

struct DenseRows {
  const Matrix &matrix;
  const float *values;
  uint32_t count() const { return matrix.rows; }
  uint32_t entries(uint32_t) const { return matrix.cols; }
  DenseRow row(uint32_t row) const { return {values + size_t(row) * matrix.cols, 1, 0}; }
};

struct DenseColumns {
  const Matrix &matrix;
  const float *values;
  uint32_t count() const { return matrix.cols; }
  uint32_t entries(uint32_t) const { return matrix.rows; }
  DenseRow row(uint32_t column) const { return {values + column, matrix.cols, 0}; }
};

// One chain of each group: a = fma(w[k], x[source(k)], a).
template <uint32_t kGroups, typename Row>
TKT_INLINE void chain_step(const Row &row, uint32_t ahead, const float *x, size_t stride, V16 (&chain)[kGroups]) {
  V16 weight = row.weight(ahead);
  const float *at = x + row.source(ahead) * kLanes;
  TKT_UNROLL
  for (uint32_t g = 0; g < kGroups; ++g) chain[g] = fused(weight, V16::load(at + g * stride), chain[g]);
}

template <uint32_t kGroups, typename Row>
TKT_INLINE void row_product(Row row, uint32_t entries, float start, const float *x, size_t stride, V16 (&y)[kGroups]) {
  V16 a0[kGroups], a1[kGroups], a2[kGroups], a3[kGroups];
  TKT_UNROLL
  for (uint32_t g = 0; g < kGroups; ++g) {
    a0[g] = V16::broadcast(start);
    a1[g] = a2[g] = a3[g] = V16::zero();
  }
  for (; entries >= 4; entries -= 4, row.advance(4)) {
    chain_step(row, 0, x, stride, a0);
    chain_step(row, 1, x, stride, a1);
    chain_step(row, 2, x, stride, a2);
    chain_step(row, 3, x, stride, a3);
  }
  if (entries > 0) chain_step(row, 0, x, stride, a0);
  if (entries > 1) chain_step(row, 1, x, stride, a1);
  if (entries > 2) chain_step(row, 2, x, stride, a2);
  TKT_UNROLL
  for (uint32_t g = 0; g < kGroups; ++g) y[g] = add(add(a0[g], a1[g]), add(a2[g], a3[g]));
}

// Where a product reads and writes: x (groups, inputs, 16), y (groups, rows, 16).
struct ProductPlace {
  const float *bias, *x;
  float *y;
  size_t x_stride, y_stride;
  bool accumulate;
};

template <uint32_t kGroups, typename Rows>
inline void product_of_groups(const Rows &rows, const ProductPlace &p, uint32_t group) {
  const float *x = p.x + group * p.x_stride;
  float *out = p.y + group * p.y_stride;
  for (uint32_t r = 0; r < rows.count(); ++r, out += kLanes) {
    V16 y[kGroups];
    row_product<kGroups>(rows.row(r), rows.entries(r), p.bias ? p.bias[r] : 0.0f, x, p.x_stride, y);
    TKT_UNROLL
    for (uint32_t g = 0; g < kGroups; ++g) {
      float *to = out + g * p.y_stride;
      (p.accumulate ? add(V16::load(to), y[g]) : y[g]).store(to);
    }
  }
}

template <typename Rows>
inline void product_of_rows(const Rows &rows, const ProductPlace &place, uint32_t groups) {
  constexpr uint32_t kMany = V16::kGroupsAtOnce;
  uint32_t group = 0;
  for (; group + kMany <= groups; group += kMany) product_of_groups<kMany>(rows, place, group);
  for (; group < groups; ++group) product_of_groups<1>(rows, place, group);
}

void product(const Matrix &m, const float *values, const float *bias, const float *x, float *y, uint32_t groups,
             bool accumulate) {
  ProductPlace place = {bias, x, y, size_t(m.cols) * kLanes, size_t(m.rows) * kLanes, accumulate};
  if (m.columns16) return product_of_rows(SparseRows<uint16_t>{m, m.columns16, values}, place, groups);
  if (m.columns32) return product_of_rows(SparseRows<uint32_t>{m, m.columns32, values}, place, groups);
  product_of_rows(DenseRows{m, values}, place, groups);
}

void dense_transposed_product(const Matrix &m, const float *values, const float *dy, float *dx, uint32_t groups,
                              bool accumulate) {
  ProductPlace place = {nullptr, dy, dx, size_t(m.rows) * kLanes, size_t(m.cols) * kLanes, accumulate};
  product_of_rows(DenseColumns{m, values}, place, groups);
}

// Where a weight gradient reads: full groups of 16 samples, then perhaps one that is not full.
struct GradientPlace {
  const float *dy, *x;
  size_t dy_stride, x_stride;
  uint32_t full_groups;
  Lanes last;
  bool has_last;
};

GradientPlace gradient_place(const float *dy, const float *x, uint32_t rows, uint32_t cols, uint32_t samples) {
  uint32_t rest = samples % kLanes;
  return {dy, x, size_t(rows) * kLanes, size_t(cols) * kLanes, samples / kLanes, Lanes::first(rest), rest != 0};
}

// The columns of a dense row, used like a pointer to stored ones.
struct Consecutive {
  uint32_t first;
  uint32_t operator[](uint32_t k) const { return first + k; }
};

// One step of kCount chains: a = fma(dy, x[column], a).
template <uint32_t kCount, typename Columns>
inline void gradient_step(Columns columns, V16 dy, const float *x, V16 (&a)[kCount]) {
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) a[j] = fused(dy, V16::load(x + size_t(columns[j]) * kLanes), a[j]);
}

// The chains of kCount entries over any number of groups.
template <uint32_t kCount, typename Columns>
inline void gradient_chains(Columns columns, const GradientPlace &p, const float *dy, V16 (&a)[kCount]) {
  const float *x = p.x;
  for (uint32_t group = 0; group < p.full_groups; ++group, x += p.x_stride, dy += p.dy_stride) {
    gradient_step(columns, V16::load(dy), x, a);
  }
  if (!p.has_last) return;
  V16 next[kCount];
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) next[j] = a[j];
  gradient_step(columns, V16::load(dy), x, next);
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) a[j] = select(p.last, next[j], a[j]);
}

// The same for exactly two full groups, without a loop: the usual batch of 32.
template <uint32_t kCount, typename Columns>
inline void gradient_chains_of_two(Columns columns, const GradientPlace &p, const float *dy, V16 (&a)[kCount]) {
  V16 dy0 = V16::load(dy), dy1 = V16::load(dy + p.dy_stride);
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) {
    const float *at = p.x + size_t(columns[j]) * kLanes;
    a[j] = fused(dy1, V16::load(at + p.x_stride), fused(dy0, V16::load(at), a[j]));
  }
}

// kCount entries of one row: their chains, then the sums over lanes.
template <uint32_t kCount, bool kTwoGroups, typename Columns>
TKT_INLINE void entry_gradients(Columns columns, const GradientPlace &p, const float *dy, float *out) {
  V16 a[kCount];
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) a[j] = V16::zero();
  if constexpr (kTwoGroups) {
    gradient_chains_of_two(columns, p, dy, a);
  } else {
    gradient_chains(columns, p, dy, a);
  }
  sum_lanes<kCount>(a, out);
}

// The last one to three entries of a row, by a block of four that repeats some.
template <bool kTwoGroups, typename Columns>
inline void last_gradients(Columns columns, uint32_t left, const GradientPlace &p, const float *dy, float *out) {
  const uint32_t few[4] = {columns[0], columns[left > 1], columns[left - 1], columns[0]};
  float sums[4];
  entry_gradients<4, kTwoGroups>(static_cast<const uint32_t *>(few), p, dy, sums);
  for (uint32_t j = 0; j < left; ++j) out[j] = sums[j];
}

// Rows in order, each by blocks as large as the registers allow. The last block of a row may run on into the next row,
// whose gradients are then written over it; only the matrix's own end must be kept.
template <bool kTwoGroups, typename Column>
void sparse_gradients(const Matrix &m, const Column *columns, const GradientPlace &place, float *gradients) {
  constexpr uint32_t kMany = V16::kNonzerosAtOnce;
  for (uint32_t r = 0; r < m.rows; ++r) {
    const float *dy = place.dy + size_t(r) * kLanes;
    uint32_t k = m.row_ptr[r];
    const uint32_t end = m.row_ptr[r + 1];
    if constexpr (kMany > 8) {
      for (; k + 8 < end && k + kMany <= m.nnz; k += kMany) {
        entry_gradients<kMany, kTwoGroups>(columns + k, place, dy, gradients + k);
      }
      for (; k + 4 < end && k + 8 <= m.nnz; k += 8) {
        entry_gradients<8, kTwoGroups>(columns + k, place, dy, gradients + k);
      }
    }
    for (; k < end && k + 4 <= m.nnz; k += 4) {
      entry_gradients<4, kTwoGroups>(columns + k, place, dy, gradients + k);
    }
    if (k < end) last_gradients<kTwoGroups>(columns + k, end - k, place, dy, gradients + k);
  }
}

void dense_gradients(const Matrix &m, const GradientPlace &place, float *gradients) {
  for (uint32_t r = 0; r < m.rows; ++r) {
    const float *dy = place.dy + size_t(r) * kLanes;
    float *out = gradients + size_t(r) * m.cols;
    uint32_t c = 0;
    for (; c + 4 <= m.cols; c += 4) entry_gradients<4, false>(Consecutive{c}, place, dy, out + c);
    if (c < m.cols) last_gradients<false>(Consecutive{c}, m.cols - c, place, dy, out + c);
  }
}

void weight_gradient(const Matrix &m, const float *dy, const float *x, uint32_t samples, float *gradients) {
  const GradientPlace place = gradient_place(dy, x, m.rows, m.cols, samples);
  if (m.columns32) return sparse_gradients<false>(m, m.columns32, place, gradients);
  if (m.dense()) return dense_gradients(m, place, gradients);
  if (samples == 2 * kLanes) return sparse_gradients<true>(m, m.columns16, place, gradients);
  sparse_gradients<false>(m, m.columns16, place, gradients);
}

// kCount rows of dy from one on, where `left` rows are left: a = a + dy over the groups, then the sums over lanes.
template <uint32_t kCount>
inline void bias_gradients(const GradientPlace &p, const float *dy, uint32_t left, float *out) {
  V16 a[kCount];
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) {
    const float *at = dy + size_t(j < left ? j : 0) * kLanes;
    a[j] = V16::zero();
    for (uint32_t group = 0; group < p.full_groups; ++group, at += p.dy_stride) a[j] = add(a[j], V16::load(at));
    if (p.has_last) a[j] = select(p.last, add(a[j], V16::load(at)), a[j]);
  }
  float sums[kCount];
  sum_lanes<kCount>(a, sums);
  for (uint32_t j = 0; j < kCount && j < left; ++j) out[j] = sums[j];
}

void bias_gradient(uint32_t rows, const float *dy, uint32_t samples, float *gradients) {
  constexpr uint32_t kMany = V16::kNonzerosAtOnce;
  const GradientPlace place = gradient_place(dy, nullptr, rows, 0, samples);
  for (uint32_t r = 0; r < rows; r += kMany) {
    bias_gradients<kMany>(place, dy + size_t(r) * kLanes, rows - r, gradients + r);
  }
}

void relu(const float *x, float *y, uint64_t count) {
  for (uint64_t i = 0; i < count; i += kLanes) {
    V16 v = V16::load(x + i);
    where_positive(v, v).store(y + i);
  }
}

void relu_gradient(const float *y, const float *dy, float *dx, uint64_t count, bool accumulate) {
  for (uint64_t i = 0; i < count; i += kLanes) {
    V16 v = where_positive(V16::load(y + i), V16::load(dy + i));
    (accumulate ? add(V16::load(dx + i), v) : v).store(dx + i);
  }
}

void add_buffers(const float *a, const float *b, float *y, uint64_t count) {
  for (uint64_t i = 0; i < count; i += kLanes) add(V16::load(a + i), V16::load(b + i)).store(y + i);
}

void softmax(const float *z, uint32_t classes, float *exponentials, float *maximum, float *sum, float *log_sum) {
  V16 m = V16::load(z), s = V16::zero();
  for (uint32_t j = 1; j < classes; ++j) m = larger(V16::load(z + size_t(j) * kLanes), m);
  for (uint32_t j = 0; j < classes; ++j) {
    alignas(64) float e[kLanes];
    subtract(V16::load(z + size_t(j) * kLanes), m).store(e);
    for (float &lane : e) lane = exp_f32(lane);
    V16 v = V16::load(e);
    v.store(exponentials + size_t(j) * kLanes);
    s = add(s, v);
  }
  m.store(maximum);
  s.store(sum);
  for (uint32_t l = 0; l < kLanes; ++l) log_sum[l] = log_f32(sum[l]);
}

// (x - mean) * inverse_std of one element, into the buffer; what is not finite makes `check` NaN.
inline void put_element(V16 raw, float mean, float inverse_std, float *to, V16 *check) {
  V16 v = multiply(subtract(raw, V16::broadcast(mean)), V16::broadcast(inverse_std));
  *check = fused(v, V16::zero(), *check);
  v.store(to);
}

// Sixteen samples, row-major, to one group. Lanes without a sample read as raw zeros.
inline void ingest_group(const float *samples, uint32_t lanes, const InputSpec &input, float *x, V16 *check) {
  const uint32_t elements = input.shape.elements(), per_channel = elements / input.channels;
  const float *mean = input.mean, *inverse_std = input.inverse_std;
  uint32_t left = per_channel;
  for (uint32_t first = 0; first < elements; first += kLanes) {
    V16 block[kLanes];
    const uint32_t width = elements - first < kLanes ? elements - first : kLanes;
    for (uint32_t l = 0; l < kLanes; ++l) {
      const float *from = samples + size_t(l) * elements + first;
      if (l >= lanes) {
        block[l] = V16::zero();
      } else if (width == kLanes) {
        block[l] = V16::load_unaligned(from);
      } else {
        alignas(64) float part[kLanes] = {};
        memcpy(part, from, width * sizeof(float));
        block[l] = V16::load(part);
      }
    }
    transpose(block);
    for (uint32_t j = 0; j < width; ++j) {
      put_element(block[j], *mean, *inverse_std, x + size_t(first + j) * kLanes, check);
      if (--left == 0 && input.channels > 1) ++mean, ++inverse_std, left = per_channel;
    }
  }
}

bool ingest(const float *samples, uint32_t count, const InputSpec &input, float *x) {
  const uint32_t elements = input.shape.elements();
  V16 check = V16::zero();
  for (uint32_t first = 0; first < count; first += kLanes) {
    uint32_t lanes = count - first < kLanes ? count - first : kLanes;
    ingest_group(samples + size_t(first) * elements, lanes, input, x + size_t(first) * elements, &check);
  }
  alignas(64) float lanes[kLanes];
  check.store(lanes);
  bool finite = true;
  for (float lane : lanes) finite &= lane == lane;
  return finite;
}

bool array_is_finite(const float *values, uint32_t count) {
  V16 check = V16::zero();
  for (uint32_t i = 0; i < count; i += kLanes) check = fused(V16::load(values + i), V16::zero(), check);
  alignas(64) float lanes[kLanes];
  check.store(lanes);
  bool finite = true;
  for (float lane : lanes) finite &= lane == lane;
  return finite;
}

// The moments of a weight whose gradient has become zero decay, and would stay subnormal for ever.
void sgd(const SgdStep &step, float *values, const float *gradients, float *velocity, uint32_t count) {
  V16 decay = V16::broadcast(step.weight_decay), momentum = V16::broadcast(step.momentum);
  V16 minus_rate = V16::broadcast(step.minus_learning_rate);
  for (uint32_t i = 0; i < count; i += kLanes) {
    V16 w = V16::load(values + i), g = V16::load(gradients + i);
    if (step.weight_decay > 0) g = fused(decay, w, g);
    if (velocity) {
      g = without_subnormals(fused(momentum, V16::load(velocity + i), g));
      g.store(velocity + i);
    }
    fused(minus_rate, g, w).store(values + i);
  }
}

void adam(const AdamStep &step, float *values, const float *gradients, float *moment1, float *moment2, uint32_t count) {
  V16 beta1 = V16::broadcast(step.beta1), beta2 = V16::broadcast(step.beta2);
  V16 rest1 = V16::broadcast(step.one_minus_beta1), rest2 = V16::broadcast(step.one_minus_beta2);
  V16 size = V16::broadcast(step.step_size), scale = V16::broadcast(step.inverse_sqrt);
  V16 epsilon = V16::broadcast(step.epsilon), decay = V16::broadcast(step.weight_decay);
  for (uint32_t i = 0; i < count; i += kLanes) {
    V16 w = V16::load(values + i), g = V16::load(gradients + i);
    if (step.weight_decay > 0) g = fused(decay, w, g);
    V16 m = without_subnormals(fused(beta1, V16::load(moment1 + i), multiply(rest1, g)));
    V16 v = without_subnormals(fused(beta2, V16::load(moment2 + i), multiply(rest2, multiply(g, g))));
    m.store(moment1 + i);
    v.store(moment2 + i);
    V16 divisor = add(multiply(square_root(v), scale), epsilon);
    subtract(w, multiply(size, divide(m, divisor))).store(values + i);
  }
}

constexpr Kernels kernels_named(uint32_t name) {
  return {name,
          ingest,
          product,
          dense_transposed_product,
          weight_gradient,
          bias_gradient,
          relu,
          relu_gradient,
          add_buffers,
          softmax,
          array_is_finite,
          sgd,
          adam};
}

}  // namespace
}  // namespace tkt
