// The ops, apart from the Device that calls them. Each is what its Args in device.h say, written as plainly as it goes.
#pragma once
#include "device/device.h"

namespace foundry::reference {

void embed(const EmbedArgs& args);
void rms_norm(const RmsNormArgs& args);
void linear(const LinearArgs& args);
void rope(const RopeArgs& args);
void kv_append(const KvAppendArgs& args);
void attention(const AttentionArgs& args);
void swiglu(const GatedArgs& args);
void geglu(const GatedArgs& args);
void add(const AddArgs& args);
void select_rows(const SelectRowsArgs& args);
void sample(const SampleArgs& args);

}  // namespace foundry::reference
