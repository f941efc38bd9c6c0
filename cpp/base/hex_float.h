// Floats as C's %a writes them, exact in both ways. Of our own, for C's functions follow the process's locale, which
// is the caller's: with a decimal comma a graph would have another text, and so another hash.
#pragma once
#include <optional>
#include <string>

namespace foundry {

/// "0x1.8p+1" for 3; "-0x0p+0", "inf", "nan".
std::string hex_float(float value);

/// What hex_float() wrote; nothing of any other text.
std::optional<float> parse_hex_float(const std::string& text);

}  // namespace foundry
