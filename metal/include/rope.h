// Rotary position embedding (arXiv:2104.09864) of a row's heads.
#pragma once
#include "kernel.h"

/// Where a position stands on the circle of each frequency: turns = position * frequency, the whole ones dropped.
/// Frequencies come in two floats (value, rest), so that far positions turn as exactly as near ones.
METAL_FUNC float2 cos_sin(float position, float2 frequency) {
  const float turns = position * frequency.x;
  const float rest = fma(position, frequency.x, -turns) + position * frequency.y;
  const float part = turns - rint(turns);  // exact
  const float sum = part + rest, lost = rest - (sum - part);
  const float angle = sum * 6.283185307179586f;
  const float off = fma(sum, 6.283185307179586f, -angle) + sum * -1.7484556e-7f + lost * 6.283185307179586f;
  const float c = precise::cos(angle), s = precise::sin(angle);
  return float2(c - off * s, s + off * c);
}

/// `n_heads` heads, one behind the other, by thread `index` of kThreads. `out` may be `in`. frequencies [rot_dim / 2]:
/// turns of a position, (value, rest).
template <uint kThreads>
METAL_FUNC void turn_heads(device const float* in, device float* out, uint n_heads, int at_position,
                           device const float2* frequencies, constant RopeParams& p, uint index) {
  const uint half_dim = p.rot_dim / 2;
  const float position = float(at_position);
  const uint times_length = uint(at_position) / max(p.temperature_length, 1u);
  const float times =
      p.temperature_length == 0 ? 1.0f : 1.0f + p.temperature * precise::log(1.0f + float(times_length));
  const float turned = p.magnitude * times;
  for (uint i = index; i < n_heads * half_dim; i += kThreads) {
    const uint head = i / half_dim, pair = i % half_dim;
    const float2 turn = cos_sin(position, frequencies[pair]);
    const float along = turn.x * turned, across = turn.y * turned;
    const uint at = head * p.head_dim;
    const uint a = at + (p.style == 0 ? 2 * pair : pair), b = at + (p.style == 0 ? 2 * pair + 1 : pair + half_dim);
    const float xa = in[a], xb = in[b];
    out[a] = xa * along - xb * across;
    out[b] = xa * across + xb * along;
  }
  const uint rest = p.head_dim - p.rot_dim;
  for (uint i = index; i < n_heads * rest; i += kThreads) {
    const uint at = i / rest * p.head_dim + p.rot_dim + i % rest;
    out[at] = in[at] * times;
  }
}
