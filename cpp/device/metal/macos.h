// The system that this process runs on.
#pragma once
#include <string>

namespace foundry {

/// 14 for macOS 14.
int macos_version();
/// "23F79": it changes with every update, and with it drivers and compilers do.
std::string macos_build();

}  // namespace foundry
