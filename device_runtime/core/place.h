// Where the elements of a buffer lie. A buffer is (groups, size, lanes): `lanes` samples side by side, element after
// element, group after group. Images have room for the zeros that a convolution reads around them, so that no kernel ever
// asks whether it is at an edge.
#pragma once

#include <stdint.h>

#include "core/artifact.h"

namespace tkt {

// Rows and columns of zeros around every channel.
struct Halo {
  uint16_t top, bottom, left, right;

  bool none() const { return top == 0 && bottom == 0 && left == 0 && right == 0; }
  void widen(const Halo &other) {
    top = other.top > top ? other.top : top;
    bottom = other.bottom > bottom ? other.bottom : bottom;
    left = other.left > left ? other.left : left;
    right = other.right > right ? other.right : right;
  }
};

// In vectors of `lanes` floats. Element (c, y, x) of the shape lies at origin + c * plane + y * pitch + x.
struct Place {
  uint32_t channels, rows, length;
  uint32_t plane, pitch, origin, size;

  bool flat() const { return pitch == length && plane == rows * length; }
  uint32_t elements() const { return channels * rows * length; }
  uint32_t at(uint32_t c, uint32_t y, uint32_t x) const { return origin + c * plane + y * pitch + x; }
  uint32_t at(uint32_t element) const {  // in row-major order
    if (flat()) return element;
    uint32_t row = element / length;
    return at(row / rows, row % rows, element % length);
  }
};

// (channels), (channels, length) or (channels, rows, length); a fourth dimension counts as rows.
inline Place place_of(const Shape &shape, const Halo &halo) {
  Place p;
  p.channels = shape.extent[0];
  p.length = shape.rank == 1 ? 1 : shape.extent[shape.rank - 1];
  p.rows = shape.elements() / (p.channels * p.length);
  p.pitch = halo.left + p.length + halo.right;
  p.plane = p.pitch * (halo.top + p.rows + halo.bottom);
  p.origin = halo.top * p.pitch + halo.left;
  p.size = p.channels * p.plane;
  return p;
}

}  // namespace tkt
