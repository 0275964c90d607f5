// Linear products with a matrix, and the gradient of its weights. The rows of W and of its transpose look alike through Row
// types; where they share no columns, a product keeps four chains so that no addition waits for the one before.

// Walks the entries of one row: the weight and the element it multiplies of the entry `ahead` of the present one.
template <typename Column>
struct SparseRow {
  const float *values;
  const Column *columns;
  float weight(uint32_t ahead) const { return values[ahead]; }
  size_t source(uint32_t ahead) const { return columns[ahead]; }
  void advance(uint32_t entries) { values += entries, columns += entries; }
};

// Of blocks, whose entries lie side by side and number a multiple of four, four are walked at a time.
template <typename Index, uint32_t kBlock>
struct TransposedRow {
  const float *values;
  const Index *from, *codes;
  uint32_t inside = 0;  // of the block at hand
  float weight(uint32_t ahead) const { return kBlock == 1 ? values[from[ahead]] : values[*from + inside + ahead]; }
  size_t source(uint32_t ahead) const { return kBlock == 1 ? codes[ahead] : size_t(*codes) + inside + ahead; }
  void advance(uint32_t entries) {
    if (kBlock > 4) inside = (inside + entries) % kBlock;
    if (kBlock > 1) entries = inside == 0;
    from += entries, codes += entries;
  }
};

template <typename Column>
struct SparseRows {
  const Matrix &matrix;
  const Column *columns;
  const float *values;
  uint32_t entries(uint32_t row) const { return matrix.row_ptr[row + 1] - matrix.row_ptr[row]; }
  SparseRow<Column> row(uint32_t row) const { return {values + matrix.row_ptr[row], columns + matrix.row_ptr[row]}; }
};

template <typename Index, uint32_t kBlock>
struct TransposedRows {
  const Transposed &matrix;
  const Index *from, *codes;
  const float *values;
  uint32_t entries(uint32_t row) const { return kBlock * (matrix.row_ptr[row + 1] - matrix.row_ptr[row]); }
  TransposedRow<Index, kBlock> row(uint32_t row) const {
    return {values, from + matrix.row_ptr[row], codes + matrix.row_ptr[row]};
  }
};

// One chain of each group: a = fma(w[k], x[source(k)], a).
template <typename V, uint32_t kGroups, typename Row>
TKT_INLINE void chain_step(const Row &row, uint32_t ahead, const float *x, size_t stride, V (&chain)[kGroups]) {
  V weight = V::broadcast(row.weight(ahead));
  const float *at = x + row.source(ahead) * V::kLanes;
  TKT_UNROLL
  for (uint32_t g = 0; g < kGroups; ++g) chain[g] = fused(weight, V::load(at + g * stride), chain[g]);
}

template <typename V, uint32_t kGroups, typename Row>
TKT_INLINE void row_product(Row row, uint32_t entries, float start, const float *x, size_t stride, V (&y)[kGroups]) {
  V a0[kGroups], a1[kGroups], a2[kGroups], a3[kGroups];
  TKT_UNROLL
  for (uint32_t g = 0; g < kGroups; ++g) {
    a0[g] = V::broadcast(start);
    a1[g] = a2[g] = a3[g] = V::zero();
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

template <typename V, uint32_t kGroups, typename Rows>
inline void product_of_groups(const Rows &rows, const ProductPlace &p, uint32_t group) {
  const float *x = p.x + group * p.x_stride;
  float *out = p.y + group * p.y_stride + size_t(p.first) * V::kLanes;
  for (uint32_t r = p.first; r < p.last; ++r, out += V::kLanes) {
    V y[kGroups];
    row_product(rows.row(r), rows.entries(r), p.bias ? p.bias[r] : 0.0f, x, p.x_stride, y);
    TKT_UNROLL
    for (uint32_t g = 0; g < kGroups; ++g) {
      float *to = out + g * p.y_stride;
      (p.accumulate ? add(V::load(to), y[g]) : y[g]).store(to);
    }
  }
}

template <typename V, typename Rows>
inline void product_of_rows(const Rows &rows, const ProductPlace &place, uint32_t groups) {
  uint32_t group = 0;
  if constexpr (V::kLanes == kMaxLanes) {  // fewer lanes have one group
    for (; group + kGroupsAtOnce <= groups; group += kGroupsAtOnce) {
      product_of_groups<V, kGroupsAtOnce>(rows, place, group);
    }
  }
  for (; group < groups; ++group) product_of_groups<V, 1>(rows, place, group);
}

template <typename V>
void product(const Matrix &m, const float *values, const float *bias, const Tensor &x, const Tensor &y, uint32_t groups,
             uint32_t first, uint32_t last) {
  const ProductPlace place = {bias, x.data, y.data, x.group_stride, y.group_stride, false, first, last};
  if (m.dense()) return product_of_shared<V>(DenseRows{m, values}, place, groups);
  if (m.block > 1) return product_of_shared<V>(BlockRows{m, values}, place, groups);
  if (m.columns16) return product_of_rows<V>(SparseRows<uint16_t>{m, m.columns16, values}, place, groups);
  product_of_rows<V>(SparseRows<uint32_t>{m, m.columns32, values}, place, groups);
}

template <typename V, typename Index>
inline void product_of_columns(const Transposed &t, const Index *from, const Index *codes, const float *values,
                               const ProductPlace &place, uint32_t groups) {
  if (t.block == 1) return product_of_rows<V>(TransposedRows<Index, 1>{t, from, codes, values}, place, groups);
  if (t.block == 4) return product_of_rows<V>(TransposedRows<Index, 4>{t, from, codes, values}, place, groups);
  product_of_rows<V>(TransposedRows<Index, 8>{t, from, codes, values}, place, groups);
}

template <typename V>
void transposed_product(const Transposed &t, const float *values, const Tensor &dy, const Tensor &dx, uint32_t groups,
                        bool accumulate, uint32_t first, uint32_t last) {
  const ProductPlace place = {nullptr, dy.data, dx.data, dy.group_stride, dx.group_stride, accumulate, first, last};
  if (t.codes16) return product_of_columns<V>(t, t.from16, t.codes16, values, place, groups);
  product_of_columns<V>(t, t.from32, t.codes32, values, place, groups);
}

template <typename V>
void dense_transposed_product(const Matrix &m, const float *values, const Tensor &dy, const Tensor &dx, uint32_t groups,
                              bool accumulate, uint32_t first, uint32_t last) {
  const ProductPlace place = {nullptr, dy.data, dx.data, dy.group_stride, dx.group_stride, accumulate, first, last};
  product_of_shared<V>(DenseColumns{m, values}, place, groups);
}

// kCount entries of one row: a = fma(dy, x[column], a) over the groups, then the sums over lanes. kGroups is 2 where
// there are two, which need no loop.
template <typename V, uint32_t kCount, uint32_t kGroups, typename Columns>
TKT_INLINE void entry_gradients(Columns columns, const GradientPlace &p, const float *dy, float *out) {
  const float *x = p.x;
  V a[kCount];
  TKT_UNROLL
  for (uint32_t j = 0; j < kCount; ++j) a[j] = V::zero();
  const auto add_group = [&]() TKT_INLINE_LAMBDA {
    const V gradient = V::load(dy);
    TKT_UNROLL
    for (uint32_t j = 0; j < kCount; ++j) {
      a[j] = fused(gradient, V::load(x + size_t(columns[j]) * V::kLanes), a[j]);
    }
    x += p.x_stride;
    dy += p.dy_stride;
  };
  if constexpr (kGroups == 2) {
    add_group();
    add_group();
  } else {
    for (uint32_t group = 0; group < p.groups; ++group) add_group();
  }
  sum_lanes<kCount>(a, out);
}

// The entries [k, end) of one row, as many at once as the registers allow. That may run on behind `end` as far as there are
// columns, up to `limit`; what it writes there is replaced by the next row.
template <typename V, uint32_t kGroups, typename Columns>
TKT_INLINE_IF_LARGE void row_gradients(Columns columns, uint32_t k, uint32_t end, uint32_t limit,
                                       const GradientPlace &p, const float *dy, float *out) {
  constexpr uint32_t kMany = kSumsAtOnce<V>;
  if constexpr (kMany > 8) {
    for (; k + 8 < end && k + kMany <= limit; k += kMany) {
      entry_gradients<V, kMany, kGroups>(columns + k, p, dy, out + k);
    }
    for (; k + 4 < end && k + 8 <= limit; k += 8) entry_gradients<V, 8, kGroups>(columns + k, p, dy, out + k);
  }
  for (; k < end && k + 4 <= limit; k += 4) entry_gradients<V, 4, kGroups>(columns + k, p, dy, out + k);
  if (k >= end) return;
  const uint32_t left = end - k;
  const uint32_t few[4] = {columns[k], columns[k + (left > 1)], columns[k + left - 1], columns[k]};
  float sums[4];
  entry_gradients<V, 4, 0>(static_cast<const uint32_t *>(few), p, dy, sums);
  for (uint32_t j = 0; j < left; ++j) out[k + j] = sums[j];
}

template <typename V, uint32_t kGroups, typename Column>
inline void sparse_gradients(const Matrix &m, const Column *columns, const GradientPlace &place, const Tensor &dy,
                             uint32_t first, uint32_t last, float *out) {
  const uint32_t start = m.row_ptr[first], limit = m.row_ptr[last] - start;
  for (uint32_t r = first; r < last; ++r) {
    row_gradients<V, kGroups>(columns + start, m.row_ptr[r] - start, m.row_ptr[r + 1] - start, limit, place,
                              dy.data + size_t(r) * V::kLanes, out);
  }
}

template <typename V>
inline void dense_gradients(const Matrix &m, const GradientPlace &place, const float *dy, uint32_t count, float *out) {
  constexpr uint32_t kRows = kSumsAtOnce<V> == 16 ? 4 : 2, kCount = kRows;
  const Consecutive columns = {0};
  for (; count >= kRows; count -= kRows, dy += kRows * V::kLanes, out += size_t(kRows) * m.cols) {
    uint32_t k = 0;
    for (; k + kCount <= m.cols; k += kCount) {
      float sums[kRows * kCount];
      shared_entry_gradients<V, kRows, kCount, false>(columns + k, place, dy, sums);
      for (uint32_t i = 0; i < kRows; ++i) {
        memcpy(out + size_t(i) * m.cols + k, sums + i * kCount, kCount * sizeof(float));
      }
    }
    for (uint32_t i = 0; k < m.cols && i < kRows; ++i) {
      row_gradients<V, 0>(columns, k, m.cols, m.cols, place, dy + i * V::kLanes, out + size_t(i) * m.cols);
    }
  }
  for (; count > 0; --count, dy += V::kLanes, out += m.cols) {
    row_gradients<V, 0>(columns, 0, m.cols, m.cols, place, dy, out);
  }
}

template <typename V, typename Column>
inline void gradients_of_columns(const Matrix &m, const Column *columns, const GradientPlace &place, const Tensor &dy,
                                 uint32_t first, uint32_t last, float *out) {
  if constexpr (V::kLanes == kMaxLanes && kGroupsAtOnce == 2) {  // the usual batch of 32, without a loop
    if (place.groups == 2) return sparse_gradients<V, 2>(m, columns, place, dy, first, last, out);
  }
  sparse_gradients<V, 0>(m, columns, place, dy, first, last, out);
}

template <typename V>
void weight_gradient(const Matrix &m, const Tensor &dy, const Tensor &x, uint32_t groups, uint32_t first, uint32_t last,
                     float *out) {
  const GradientPlace place = {x.data, dy.group_stride, x.group_stride, groups};
  if (m.dense()) {
    dense_gradients<V>(m, place, dy.data + size_t(first) * V::kLanes, last - first, out);
    return clear_pruned(m, first, last, out);
  }
  if (m.block > 1) {
    for (uint32_t row = first; row < last; row += m.block) {
      block_gradients<V>(m.columns16 + m.column_begin(row), m.entries(row), m.block, place,
                         dy.data + size_t(row) * V::kLanes, out + (m.row_begin(row) - m.row_begin(first)));
    }
    return;
  }
  if (m.columns16) return gradients_of_columns<V>(m, m.columns16, place, dy, first, last, out);
  gradients_of_columns<V>(m, m.columns32, place, dy, first, last, out);
}

// dx += W^T dy by rows of W: one chain an element, in the order of the rows. Needs no transposed pattern.
template <typename V, typename Columns>
inline void scatter_rows(const Matrix &m, Columns columns, const float *values, const float *dy, float *dx) {
  for (uint32_t r = 0; r < m.rows; ++r, dy += V::kLanes) {
    const V gradient = V::load(dy);
    const Columns at = columns + m.column_begin(r);
    const float *weight = values + m.value(r, 0);
    for (uint32_t k = 0, entries = m.entries(r); k < entries; ++k, weight += m.block) {
      float *to = dx + size_t(at[k]) * V::kLanes;
      fused(V::broadcast(*weight), gradient, V::load(to)).store(to);
    }
  }
}

template <typename V>
void scatter_product(const Matrix &m, const float *values, const Tensor &dy, const Tensor &dx, uint32_t groups) {
  for (uint32_t g = 0; g < groups; ++g) {
    const float *from = dy.data + g * dy.group_stride;
    float *to = dx.data + g * dx.group_stride;
    if (m.dense()) {
      scatter_rows<V>(m, Consecutive{0}, values, from, to);
    } else if (m.columns16) {
      scatter_rows<V>(m, m.columns16, values, from, to);
    } else {
      scatter_rows<V>(m, m.columns32, values, from, to);
    }
  }
}
