// Samples in: from rows of raw numbers to normalised lanes. Lanes beyond the last sample copy it, so that whatever they
// become is as finite as what the others become.

// Walks the elements of a sample and where each one goes, by stretches without gaps.
struct ElementCursor {
  const Place &p;
  uint32_t at, length, left, row = 0;
  explicit ElementCursor(const Place &place)
      : p(place), at(place.origin), length(place.flat() ? place.elements() : place.length), left(length) {}
  void advance(uint32_t elements) {  // at most `left`
    at += elements;
    left -= elements;
    if (left > 0) return;
    left = length;
    ++row;
    at = p.origin + row / p.rows * p.plane + row % p.rows * p.pitch;
  }
};

// The mean and deviation of the element at hand.
struct Normalisation {
  const float *mean, *inverse_std;
  uint32_t per_channel, left;
  Normalisation(const InputSpec &input, uint32_t elements)
      : mean(input.mean), inverse_std(input.inverse_std), per_channel(elements / input.channels), left(per_channel) {}
  void advance(uint32_t elements) {  // at most `left`
    left -= elements;
    if (left == 0) ++mean, ++inverse_std, left = per_channel;
  }
};

// One element of all lanes. What is not finite makes `check` NaN.
template <typename V>
TKT_INLINE void ingest_element(V raw, V mean, V inverse_std, float *to, V *check) {
  const V v = multiply(subtract(raw, mean), inverse_std);
  *check = fused(v, V::zero(), *check);
  v.store(to);
}

constexpr uint32_t kChecks = 4;  // chains, so that none waits for the one before

template <typename V>
inline void ingest_group(const float *samples, uint32_t count, const InputSpec &input, const Place &place, float *x,
                         V (&check)[kChecks]) {
  const uint32_t elements = place.elements();
  const float *rows[V::kLanes];
  for (uint32_t l = 0; l < V::kLanes; ++l) rows[l] = samples + size_t(l < count ? l : count - 1) * elements;
  ElementCursor to(place);
  Normalisation by(input, elements);
  for (uint32_t first = 0; first < elements; first += 16) {
    const uint32_t width = elements - first < 16 ? elements - first : 16;
    alignas(64) float part[V::kLanes][16];
    V block[16];
    if (width < 16) {
      for (uint32_t l = 0; l < V::kLanes; ++l) {
        memset(part[l], 0, sizeof part[l]);
        memcpy(part[l], rows[l], width * sizeof(float));
        rows[l] = part[l];
      }
    }
    transpose(static_cast<const float *const *>(rows), static_cast<V *>(block));
    for (const float *&row : rows) row += 16;
    if (width == 16 && to.left >= 16 && by.left >= 16) {
      const V mean = V::broadcast(*by.mean), inverse_std = V::broadcast(*by.inverse_std);
      float *out = x + size_t(to.at) * V::kLanes;
      for (uint32_t j = 0; j < 16; ++j) {
        ingest_element(block[j], mean, inverse_std, out + j * V::kLanes, &check[j % kChecks]);
      }
      to.advance(16);
      by.advance(16);
      continue;
    }
    for (uint32_t j = 0; j < width; ++j) {
      ingest_element(block[j], V::broadcast(*by.mean), V::broadcast(*by.inverse_std), x + size_t(to.at) * V::kLanes,
                     &check[0]);
      to.advance(1);
      by.advance(1);
    }
  }
}

template <typename V>
bool ingest(const float *samples, uint32_t count, const InputSpec &input, const Tensor &x) {
  const uint32_t elements = input.shape.elements();
  V check[kChecks];
  for (V &chain : check) chain = V::zero();
  float *group = x.data;
  for (uint32_t first = 0; first < count; first += V::kLanes, group += x.group_stride) {
    const uint32_t part = count - first < V::kLanes ? count - first : V::kLanes;
    ingest_group<V>(samples + size_t(first) * elements, part, input, x.place, group, check);
  }
  alignas(64) float lanes[V::kLanes];
  add(add(check[0], check[1]), add(check[2], check[3])).store(lanes);
  bool finite = true;
  for (float lane : lanes) finite &= lane == lane;
  return finite;
}
