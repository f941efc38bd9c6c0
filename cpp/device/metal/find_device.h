// The GPU of this machine, and whether the kernels are made for it.
#pragma once
#import <Metal/Metal.h>

#include <string>

namespace foundry {

/// Apple7: M1 and later. any_apple: those too that report an older family of Apple's, as the virtual GPU of a hosted
/// Mac does, whatever chip is behind it.
enum class Families { apple7, any_apple };

/// 7 for Apple7; 0: not of Apple's, as in Macs with Intel's processors.
int apple_family(id<MTLDevice> device);

/// nil where there is none. `found`, where it is given, is then what there is, for a message.
id<MTLDevice> find_device(Families families, std::string* found = nullptr);

}  // namespace foundry
