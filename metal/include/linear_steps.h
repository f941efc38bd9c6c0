// How the lanes of linear and linear_routed go along k.
#pragma once

/// `Eight` reads eight neighbours of k at a time, where rows allow it.
struct Eight {
  enum : uint { kStep = LinearLaunch::kNeighbours };
  template <class Format>
  static METAL_FUNC void weights(device const uchar* row, uint k, thread float* w) {
    Format::eight(row, k, w);
  }
};
struct Single {
  enum : uint { kStep = 1 };
  template <class Format>
  static METAL_FUNC void weights(device const uchar* row, uint k, thread float* w) {
    w[0] = Format::value(row, k);
  }
};
