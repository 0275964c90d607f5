// Samples in: from rows of raw numbers to normalised lanes. Lanes beyond the last sample copy it, so that whatever they
// become is as finite as what the others become.

// Walks the elements of a sample and where each one goes.
struct ElementCursor {
  const Place &p;
  uint32_t at, left_in_row, row;
  explicit ElementCursor(const Place &place) : p(place), at(place.origin), left_in_row(place.length), row(0) {}
  void next() {
    ++at;
    if (--left_in_row > 0) return;
    left_in_row = p.length;
    ++row;
    at = p.origin + row / p.rows * p.plane + row % p.rows * p.pitch;
  }
};

template <typename V>
inline void ingest_group(const float *samples, uint32_t count, const InputSpec &input, const Place &place, float *x,
                         V *check) {
  const uint32_t elements = place.elements(), per_channel = elements / input.channels;
  const float *rows[V::kLanes], *mean = input.mean, *inverse_std = input.inverse_std;
  for (uint32_t l = 0; l < V::kLanes; ++l) rows[l] = samples + size_t(l < count ? l : count - 1) * elements;
  uint32_t left = per_channel;
  ElementCursor to(place);
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
    for (uint32_t j = 0; j < width; ++j, to.next()) {
      const V v = multiply(subtract(block[j], V::broadcast(*mean)), V::broadcast(*inverse_std));
      *check = fused(v, V::zero(), *check);
      v.store(x + size_t(to.at) * V::kLanes);
      if (--left == 0 && input.channels > 1) ++mean, ++inverse_std, left = per_channel;
    }
  }
}

template <typename V>
bool ingest(const float *samples, uint32_t count, const InputSpec &input, const Tensor &x) {
  const uint32_t elements = input.shape.elements();
  V check = V::zero();
  float *group = x.data;
  for (uint32_t first = 0; first < count; first += V::kLanes, group += x.group_stride) {
    const uint32_t part = count - first < V::kLanes ? count - first : V::kLanes;
    ingest_group<V>(samples + size_t(first) * elements, part, input, x.place, group, &check);
  }
  alignas(64) float lanes[V::kLanes];
  check.store(lanes);
  bool finite = true;
  for (float lane : lanes) finite &= lane == lane;
  return finite;
}
