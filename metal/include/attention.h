// What both attention kernels share: rows of K and V through the page table.
#pragma once
#include "formats.h"
#include "sequences.h"

/// K or V of one layer and head. page_tokens is a power of two (it divides kSegmentTokens).
struct KvRows {
  device const Page* pages;
  ulong offset;  // of the layer, head and part in a page
  ulong row_bytes;
  uint page_shift, page_mask;
  METAL_FUNC device const uchar* at(uint position) const {
    return pages[position >> page_shift].data + offset + ulong(position & page_mask) * row_bytes;
  }
  /// Of the page that holds `position`: its first row, and how far behind it the row of another of its positions lies.
  METAL_FUNC device const uchar* page_of(uint position) const { return pages[position >> page_shift].data + offset; }
  METAL_FUNC uint behind(uint position) const { return (position & page_mask) * uint(row_bytes); }
};

template <class Format>
METAL_FUNC KvRows rows_of(device const Page* pages, constant KvParams& kv, uint layer, uint head, bool value) {
  KvRows rows;
  rows.pages = pages;
  rows.offset = layer * kv.layer_stride_bytes + head * kv.head_stride_bytes + (value ? kv.k_part_bytes : 0);
  rows.row_bytes = row_bytes<Format>(kv.head_dim);
  rows.page_mask = kv.page_tokens - 1;
  rows.page_shift = popcount(rows.page_mask);
  return rows;
}

/// Of the type that kv tells: every thread goes the same way.
struct AnyFormat {
  struct Fetched {};
};

template <class Format>
METAL_FUNC void eight_of(Format, uint, device const uchar* row, uint i, thread float* x) {
  Format::eight(row, i, x);
}
METAL_FUNC void eight_of(AnyFormat, uint type, device const uchar* row, uint i, thread float* x) {
#define FOUNDRY_EIGHT(name, Name, number, elements, bytes, kind, weight, table, kv) \
  FOUNDRY_GPU_##kv(case number : Name::eight(row, i, x); return;)
  switch (type) { FOUNDRY_FORMATS(FOUNDRY_EIGHT) }
#undef FOUNDRY_EIGHT
}
template <>
METAL_FUNC KvRows rows_of<AnyFormat>(device const Page* pages, constant KvParams& kv, uint layer, uint head,
                                     bool value) {
#define FOUNDRY_ROWS(name, Name, number, elements, bytes, kind, weight, table, kv_) \
  FOUNDRY_GPU_##kv_(case number : return rows_of<Name>(pages, kv, layer, head, value);)
  switch (value ? kv.v_type : kv.k_type) {
    FOUNDRY_FORMATS(FOUNDRY_ROWS)
    default:
      return rows_of<F16>(pages, kv, layer, head, value);
  }
#undef FOUNDRY_ROWS
}
