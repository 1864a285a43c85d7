// A bit for each of up to kTile elements, eight to a byte, the first one lowest. Loops leave a 0 or 1
// in a byte for each; eight of those at a time are packed by one multiplication. In an unnamed
// namespace, as tile.hpp says.
#pragma once

#include "cpu/tile.hpp"

namespace fastopt::cpu {
namespace {

struct Flags {
  alignas(64) uint8_t on[kTile];
};

inline void pack(Flags& flags, int n, char* bits) {
  for (int i = n; i % 8; ++i) flags.on[i] = 0;
  for (int i = 0; i < n; i += 8) {
    uint64_t eight;
    memcpy(&eight, flags.on + i, 8);
    bits[i / 8] = char(eight * 0x0102040810204080 >> 56);
  }
}

inline void unpack(const char* bits, int n, Flags& flags) {
  for (int i = 0; i < n; i += 8) {
    const uint64_t byte = uint8_t(bits[i / 8]);
    const uint64_t each = byte * 0x0101010101010101 & 0x8040201008040201;
    const uint64_t eight = (each + 0x7f7f7f7f7f7f7f7f) >> 7 & 0x0101010101010101;
    memcpy(flags.on + i, &eight, 8);
  }
}

}  // namespace
}  // namespace fastopt::cpu
