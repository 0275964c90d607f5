// Linear products over rows that share their columns: dense matrices, blocks of rows, and the columns of a dense matrix. What
// x gives is read once for all rows of a tile, which is what makes dense and structured layers faster, weight by weight,
// than others. One chain an element, in the order of the columns; the tile alone keeps the adders busy.

// The columns of a dense row, used like a pointer to stored ones.
struct Consecutive {
  uint32_t first;
  uint32_t operator[](uint32_t k) const { return first + k; }
  Consecutive operator+(uint32_t k) const { return {first + k}; }
};

// Weight k of row i of a tile is at[i * row_step + k * entry_step].
struct SharedWeights {
  const float *at;
  size_t row_step, entry_step;
};

// The gradients of rows [first, last) begin at out[0]; that of a pruned weight is 0, whatever a kernel made of it.
inline void clear_pruned(const Matrix &m, uint32_t first, uint32_t last, float *out) {
  m.for_each_pruned(first, last, [=](uint32_t k) { out[k] = 0.0f; });
}

// Where a product reads and writes, and which rows.
struct ProductPlace {
  const float *bias, *x;
  float *y;
  size_t x_stride, y_stride;
  bool accumulate;
  uint32_t first, last;
};

template <typename V, uint32_t kRows, uint32_t kGroups, typename Columns>
TKT_INLINE void shared_tile(const SharedWeights &w, Columns columns, uint32_t entries, const ProductPlace &p,
                            uint32_t row, uint32_t group) {
  const float *x = p.x + group * p.x_stride, *weight = w.at;
  V a[kRows][kGroups];
  TKT_UNROLL
  for (uint32_t i = 0; i < kRows; ++i) {
    TKT_UNROLL
    for (uint32_t g = 0; g < kGroups; ++g) a[i][g] = V::broadcast(p.bias ? p.bias[row + i] : 0.0f);
  }
  for (uint32_t k = 0; k < entries; ++k, weight += w.entry_step) {
    const float *at = x + size_t(columns[k]) * V::kLanes;
    V in[kGroups];
    TKT_UNROLL
    for (uint32_t g = 0; g < kGroups; ++g) in[g] = V::load(at + g * p.x_stride);
    TKT_UNROLL
    for (uint32_t i = 0; i < kRows; ++i) {
      const V of_row = V::broadcast(weight[i * w.row_step]);
      TKT_UNROLL
      for (uint32_t g = 0; g < kGroups; ++g) a[i][g] = fused(of_row, in[g], a[i][g]);
    }
  }
  float *y = p.y + group * p.y_stride + size_t(row) * V::kLanes;
  TKT_UNROLL
  for (uint32_t i = 0; i < kRows; ++i) {
    TKT_UNROLL
    for (uint32_t g = 0; g < kGroups; ++g) {
      float *to = y + i * V::kLanes + g * p.y_stride;
      (p.accumulate ? add(V::load(to), a[i][g]) : a[i][g]).store(to);
    }
  }
}

template <typename V, uint32_t kRows, typename Rows>
inline void shared_tiles(const Rows &rows, const ProductPlace &p, uint32_t row, uint32_t groups) {
  const SharedWeights w = rows.weights(row);
  const auto columns = rows.columns(row);
  const uint32_t entries = rows.entries(row);
  uint32_t group = 0;
  if constexpr (V::kLanes == kMaxLanes && kGroupsAtOnce > 1) {  // fewer lanes have one group
    for (; group + kGroupsAtOnce <= groups; group += kGroupsAtOnce) {
      shared_tile<V, kRows, kGroupsAtOnce>(w, columns, entries, p, row, group);
    }
  }
  for (; group < groups; ++group) shared_tile<V, kRows, 1>(w, columns, entries, p, row, group);
}

template <typename V, typename Rows>
inline void product_of_shared(const Rows &rows, const ProductPlace &p, uint32_t groups) {
  for (uint32_t row = p.first, done; row < p.last; row += done) {
    const uint32_t together = rows.together(row), left = p.last - row < together ? p.last - row : together;
    if (kRowsAtOnce > 4 && left >= kRowsAtOnce) {
      shared_tiles<V, kRowsAtOnce>(rows, p, row, groups);
      done = kRowsAtOnce;
    } else if (left >= 4) {
      shared_tiles<V, 4>(rows, p, row, groups);
      done = 4;
    } else {
      shared_tiles<V, 1>(rows, p, row, groups);
      done = 1;
    }
  }
}

// The rows of a product: how many from `row` on share their columns, which these are, and their weights.
struct DenseRows {
  const Matrix &matrix;
  const float *values;
  uint32_t together(uint32_t row) const { return matrix.rows - row; }
  uint32_t entries(uint32_t) const { return matrix.cols; }
  Consecutive columns(uint32_t) const { return {0}; }
  SharedWeights weights(uint32_t row) const { return {values + size_t(row) * matrix.cols, matrix.cols, 1}; }
};

struct DenseColumns {
  const Matrix &matrix;
  const float *values;
  uint32_t together(uint32_t column) const { return matrix.cols - column; }
  uint32_t entries(uint32_t) const { return matrix.rows; }
  Consecutive columns(uint32_t) const { return {0}; }
  SharedWeights weights(uint32_t column) const { return {values + column, 1, matrix.cols}; }
};

struct BlockRows {
  const Matrix &matrix;
  const float *values;
  uint32_t together(uint32_t row) const { return matrix.block - row % matrix.block; }
  uint32_t entries(uint32_t row) const { return matrix.entries(row); }
  const uint16_t *columns(uint32_t row) const { return matrix.columns16 + matrix.column_begin(row); }
  SharedWeights weights(uint32_t row) const { return {values + matrix.value(row, 0), 1, matrix.block}; }
};

// Gradients whose lanes are summed together: as many as the registers hold.
template <typename V>
constexpr uint32_t kSumsAtOnce = V::kLanes == kMaxLanes ? kNonzerosAtOnce : 4;

// Where a weight gradient reads.
struct GradientPlace {
  const float *x;
  size_t dy_stride, x_stride;
  uint32_t groups;
};

// kCount entries of each of kRows rows: a = fma(dy, x[column], a) over the groups, then the sums over lanes, row by row or,
// for blocks, column by column.
template <typename V, uint32_t kRows, uint32_t kCount, bool kByColumn, typename Columns>
TKT_INLINE void shared_entry_gradients(Columns columns, const GradientPlace &p, const float *dy, float *sums) {
  const auto at = [](uint32_t i, uint32_t j) TKT_INLINE_LAMBDA { return kByColumn ? j * kRows + i : i * kCount + j; };
  V a[kRows * kCount];
  TKT_UNROLL
  for (uint32_t n = 0; n < kRows * kCount; ++n) a[n] = V::zero();
  const float *x = p.x;
  for (uint32_t group = 0; group < p.groups; ++group, x += p.x_stride, dy += p.dy_stride) {
    V gradient[kRows];
    TKT_UNROLL
    for (uint32_t i = 0; i < kRows; ++i) gradient[i] = V::load(dy + i * V::kLanes);
    TKT_UNROLL
    for (uint32_t j = 0; j < kCount; ++j) {
      const V in = V::load(x + size_t(columns[j]) * V::kLanes);
      TKT_UNROLL
      for (uint32_t i = 0; i < kRows; ++i) a[at(i, j)] = fused(gradient[i], in, a[at(i, j)]);
    }
  }
  sum_lanes<kRows * kCount>(a, sums);
}

// The gradients of one block of rows, column by column.
template <typename V>
inline void block_gradients(const uint16_t *columns, uint32_t entries, uint32_t block, const GradientPlace &p,
                            const float *dy, float *out) {
  constexpr uint32_t kCount = kSumsAtOnce<V> / 4;
  for (uint32_t row = 0; row < block; row += 4, dy += 4 * V::kLanes, out += 4) {
    float sums[4 * kCount];
    uint32_t k = 0;
    for (; k + kCount <= entries; k += kCount) {
      shared_entry_gradients<V, 4, kCount, true>(columns + k, p, dy, sums);
      for (uint32_t j = 0; j < kCount; ++j) memcpy(out + size_t(k + j) * block, sums + 4 * j, 4 * sizeof(float));
    }
    for (; k < entries; ++k) {
      shared_entry_gradients<V, 4, 1, true>(columns + k, p, dy, sums);
      memcpy(out + size_t(k) * block, sums, 4 * sizeof(float));
    }
  }
}
