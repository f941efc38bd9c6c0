// The sequences of a step as GPU kernels see them: SequenceParams with its addresses as pointers.
#pragma once

struct Page {
  device uchar* data;
};

/// The same bytes as SequenceParams.
struct Sequence {
  device const Page* pages;
  u32 n_pages;
  u32 max_seq_len;
  u32 first_row;
  u32 n_rows;
  u32 start;
  u32 first_page;
};
static_assert(sizeof(Sequence) == 32, "Sequence is SequenceParams");

struct SequenceRow {
  device const Sequence* sequence;
  uint position;
};

/// Whose row it is, and at which position. Sequences are in the order of their rows.
METAL_FUNC SequenceRow sequence_of(device const Sequence* sequences, uint n, uint row) {
  uint low = 0, high = n;
  while (high - low > 1) {
    const uint middle = (low + high) / 2;
    if (sequences[middle].first_row <= row)
      low = middle;
    else
      high = middle;
  }
  SequenceRow at;
  at.sequence = sequences + low;
  at.position = sequences[low].start + (row - sequences[low].first_row);
  return at;
}
