// Numbers as the sum of two floats, some 46 bits of them (Dekker, Numerische Mathematik 18, 1971), for where the
// rounding of one float would decide something. Kernels have no double.
#pragma once

struct TwoFloats {
  float high, low;  // high is the float nearest to the sum
};

METAL_FUNC TwoFloats two_floats(float x) { return TwoFloats{x, 0.0f}; }

/// Of parts that overlap little, the larger first.
METAL_FUNC TwoFloats tidied(float high, float low) {
  const float sum = high + low;
  return TwoFloats{sum, low - (sum - high)};
}

/// Exact.
METAL_FUNC TwoFloats sum_of(float a, float b) {
  const float sum = a + b, part = sum - a;
  return TwoFloats{sum, (a - (sum - part)) + (b - part)};
}

METAL_FUNC TwoFloats sum_of(TwoFloats a, TwoFloats b) {
  const TwoFloats high = sum_of(a.high, b.high), low = sum_of(a.low, b.low);
  const TwoFloats sum = tidied(high.high, high.low + low.high);
  return tidied(sum.high, sum.low + low.low);
}

METAL_FUNC TwoFloats product_of(TwoFloats a, TwoFloats b) {
  const float product = a.high * b.high;
  const float rest = fma(a.high, b.high, -product);
  return tidied(product, fma(a.high, b.low, fma(a.low, b.high, rest)));
}

METAL_FUNC TwoFloats quotient_of(TwoFloats a, TwoFloats b) {
  const float first = precise::divide(a.high, b.high);
  const TwoFloats rest = sum_of(a, product_of(b, two_floats(-first)));
  const float second = precise::divide(rest.high, b.high);
  const TwoFloats last = sum_of(rest, product_of(b, two_floats(-second)));
  const TwoFloats both = tidied(first, second);
  return tidied(both.high, both.low + precise::divide(last.high, b.high));
}

METAL_FUNC bool is_above(TwoFloats a, TwoFloats b) { return a.high > b.high || (a.high == b.high && a.low > b.low); }
METAL_FUNC bool is_equal(TwoFloats a, TwoFloats b) { return a.high == b.high && a.low == b.low; }

/// e^x for x up to 0; 0 where floats end. x = n ln 2 + r, and of e^r's series the first terms in two floats.
METAL_FUNC TwoFloats exp_of(TwoFloats x) {
  if (x.high < -87.0f) return two_floats(0.0f);
  const float n = rint(x.high * 1.44269504f);
  const TwoFloats rest = product_of(two_floats(n), TwoFloats{2.12194440e-4f, -1.64659497e-12f});
  const TwoFloats r = sum_of(sum_of(x, two_floats(n * -0.693359375f)), rest);
  float tail = 2.08767559e-9f;  // 1/12!
  tail = fma(tail, r.high, 2.50521079e-8f);
  tail = fma(tail, r.high, 2.75573200e-7f);
  tail = fma(tail, r.high, 2.75573188e-6f);
  tail = fma(tail, r.high, 2.48015876e-5f);
  tail = fma(tail, r.high, 1.98412701e-4f);  // 1/7!
  TwoFloats sum = sum_of(TwoFloats{1.388888923e-3f, -3.363109444e-11f}, two_floats(tail * r.high));
  sum = sum_of(product_of(sum, r), TwoFloats{8.333333768e-3f, -4.346172033e-10f});
  sum = sum_of(product_of(sum, r), TwoFloats{4.166666791e-2f, -1.241763470e-9f});
  sum = sum_of(product_of(sum, r), TwoFloats{1.666666716e-1f, -4.967053879e-9f});
  sum = sum_of(product_of(sum, r), two_floats(0.5f));
  sum = sum_of(product_of(sum, r), two_floats(1.0f));
  sum = sum_of(product_of(sum, r), two_floats(1.0f));
  const float scale = as_type<float>(uint(int(n) + 127) << 23);
  return TwoFloats{sum.high * scale, sum.low * scale};
}
