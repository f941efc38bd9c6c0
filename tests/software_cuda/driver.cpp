// libcuda.so.1 as the device sees it.
#include "device/cuda/driver.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "launch_arguments.h"
#include "metal_on_linux/host/runtime.h"
#include "software_cuda/card.h"
#include "software_cuda/machine.h"

namespace foundry::cuda {

struct CUctx_st {
  int gpu;
};
struct CUmod_st {};
struct CUfunc_st {
  std::string kernel;
  uint32_t constants;
  unsigned most_shared = 48 << 10;  // without asking for more
};
struct CUstream_st {};
struct CUevent_st {
  uint64_t number = 0;
};
struct CUgraphNode_st {
  Function function;
  metal_host::Size grid;
  uint32_t threads;
  unsigned shared_bytes;
  metal_cuda::Arguments arguments;
  std::vector<size_t> behind;  // indices
};
struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;
};
struct CUgraphExec_st {
  std::vector<CUgraphNode_st> nodes;
  std::vector<GraphNode> made_of;
};

}  // namespace foundry::cuda

using namespace foundry::cuda;
using software_cuda::Card;

namespace {

constexpr Result kInvalidValue = 1, kNoDevice = 100, kInvalidDevice = 101, kInvalidImage = 200, kInvalidContext = 201,
                 kNotFound = 500, kIllegalAddress = 700;

thread_local std::vector<Context> contexts;  // of this thread, the last one is current
CUctx_st primary[16];

/// Counts a call, and refuses it where it may not be: `context` says whether it wants one.
class Call {
 public:
  explicit Call(const char* name, bool context = true) : lock_(Card::the().mutex) {
    ++software_cuda_counts()[name];
    if (Card::the().failed() != 0) refusal = Card::the().failed();
    if (context && contexts.empty()) refusal = kInvalidContext;
  }
  Result refusal = kSuccess;

 private:
  std::lock_guard<std::recursive_mutex> lock_;
};

Result run(const CUfunc_st& function, const metal_cuda::Arguments& arguments, metal_host::Size grid, uint32_t threads,
           unsigned shared_bytes) {
  const uint64_t number = ++software_cuda_counts()["launches"];
  if (number == software_cuda_settings().illegal_at) return kIllegalAddress;
  metal_host::Launch launch;
  launch.grid = grid;
  launch.threads = {threads, 1, 1};
  launch.constants = function.constants;
  launch.threadgroup_memory = function.most_shared, launch.room = shared_bytes;
  for (int i = 0; i < metal_cuda::kMostBuffers; ++i) {
    void* buffer = arguments.buffers[i];
    launch.buffers[i] = buffer != nullptr ? buffer : const_cast<char*>(arguments.values[i]);
    launch.lengths[i] = metal_cuda::kValueBytes;
    if (buffer == nullptr) continue;
    launch.lengths[i] = Card::the().length_at(reinterpret_cast<uint64_t>(buffer));
    if (launch.lengths[i] == 0) return kIllegalAddress;
  }
  metal_host::run(launch, function.kernel);
  return kSuccess;
}

bool may_be(unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
            unsigned shared_bytes, const CUfunc_st& function) {
  return grid_x != 0 && grid_y != 0 && grid_z != 0 && grid_y <= 65535 && grid_z <= 65535 && block_x != 0 &&
         block_x <= 1024 && block_y == 1 && block_z == 1 && shared_bytes <= function.most_shared;
}

void enqueue(const CUgraphNode_st& node) {
  Card::the().enqueue([function = node.function, arguments = node.arguments, grid = node.grid, threads = node.threads,
                       shared = node.shared_bytes] { return run(*function, arguments, grid, threads, shared); });
}

bool set(CUgraphNode_st& node, const KernelNode& kernel) {
  if (!may_be(kernel.grid_x, kernel.grid_y, kernel.grid_z, kernel.block_x, kernel.block_y, kernel.block_z,
              kernel.shared_bytes, *kernel.function))
    return false;
  node.function = kernel.function, node.grid = {kernel.grid_x, kernel.grid_y, kernel.grid_z};
  node.threads = kernel.block_x, node.shared_bytes = kernel.shared_bytes;
  std::memcpy(&node.arguments, kernel.parameters[0], sizeof node.arguments);
  return true;
}

}  // namespace

extern "C" {

Result cuInit(unsigned) { return kSuccess; }
Result cuDriverGetVersion(int* version) {
  *version = static_cast<int>(software_cuda_settings().version);
  return kSuccess;
}
Result cuGetErrorName(Result error, const char** name) {
  *name = error == kIllegalAddress   ? "CUDA_ERROR_ILLEGAL_ADDRESS"
          : error == kOutOfMemory    ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == kInvalidContext ? "CUDA_ERROR_INVALID_CONTEXT"
          : error == kInvalidImage   ? "CUDA_ERROR_INVALID_IMAGE"
          : error == kNotFound       ? "CUDA_ERROR_NOT_FOUND"
                                     : nullptr;
  return *name == nullptr ? kInvalidValue : kSuccess;
}
Result cuDeviceGetCount(int* n) {
  *n = static_cast<int>(software_cuda_settings().gpus);
  return kSuccess;
}
Result cuDeviceGet(Device* device, int index) {
  *device = index;
  return index < static_cast<int>(software_cuda_settings().gpus) ? kSuccess : kInvalidDevice;
}
Result cuDeviceGetName(char* name, int n, Device) {
  std::snprintf(name, static_cast<size_t>(n), "Software GPU");
  return kSuccess;
}
Result cuDeviceGetAttribute(int* value, int attribute, Device) {
  const int capability = static_cast<int>(software_cuda_settings().capability);
  *value = attribute == kCapabilityMajor ? capability / 10 : capability % 10;
  return kSuccess;
}
Result cuDeviceTotalMem_v2(size_t* bytes, Device) {
  *bytes = software_cuda_settings().memory;
  return kSuccess;
}
Result cuDevicePrimaryCtxRetain(Context* context, Device device) {
  *context = &primary[device];
  primary[device].gpu = device;
  return kSuccess;
}
Result cuCtxGetCurrent(Context* context) {
  *context = contexts.empty() ? nullptr : contexts.back();
  return kSuccess;
}
Result cuCtxPushCurrent_v2(Context context) {
  contexts.push_back(context);
  return kSuccess;
}
Result cuCtxPopCurrent_v2(Context* context) {
  if (contexts.empty()) return kInvalidContext;
  *context = contexts.back();
  contexts.pop_back();
  return kSuccess;
}
Result cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  const Call call("cuMemGetInfo");
  *free_bytes = Card::the().free_bytes(), *total_bytes = software_cuda_settings().memory;
  return call.refusal;
}

Result cuMemAlloc_v2(Address* address, size_t bytes) {
  const Call call("cuMemAlloc");
  if (call.refusal != kSuccess) return call.refusal;
  if (bytes == 0) return kInvalidValue;
  if (software_cuda_counts()["cuMemAlloc"] == software_cuda_settings().no_memory_at) return kOutOfMemory;
  *address = Card::the().allocate(bytes, false);
  return *address == 0 ? kOutOfMemory : kSuccess;
}
Result cuMemFree_v2(Address address) {
  const Call call("cuMemFree");
  if (call.refusal != kSuccess) return call.refusal;
  return Card::the().free(address, false) ? kSuccess : kInvalidValue;
}
Result cuMemHostAlloc(void** data, size_t bytes, unsigned flags) {
  const Call call("cuMemHostAlloc");
  if (call.refusal != kSuccess) return call.refusal;
  if (bytes == 0 || (flags & kDeviceMapped) == 0) return kInvalidValue;
  *data = reinterpret_cast<void*>(Card::the().allocate(bytes, true));
  return *data == nullptr ? kOutOfMemory : kSuccess;
}
Result cuMemFreeHost(void* data) {
  const Call call("cuMemFreeHost");
  if (call.refusal != kSuccess) return call.refusal;
  return Card::the().free(reinterpret_cast<uint64_t>(data), true) ? kSuccess : kInvalidValue;
}
Result cuMemHostGetDevicePointer_v2(Address* address, void* data, unsigned) {
  *address = reinterpret_cast<Address>(data);
  return Card::the().is_pinned(data) ? kSuccess : kInvalidValue;
}

/// Pinned memory is read when the copy runs; other memory has been read on return.
Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, Stream) {
  const Call call("cuMemcpyHtoD");
  if (call.refusal != kSuccess) return call.refusal;
  if (Card::the().length_at(to) < bytes) return kInvalidValue;
  if (Card::the().is_pinned(from)) {
    Card::the().enqueue([=] { return std::memcpy(reinterpret_cast<void*>(to), from, bytes), kSuccess; });
    return kSuccess;
  }
  std::vector<char> own(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  Card::the().enqueue([to, own = std::move(own)] {
    return std::memcpy(reinterpret_cast<void*>(to), own.data(), own.size()), kSuccess;
  });
  return kSuccess;
}
Result cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, Stream) {
  const Call call("cuMemcpyDtoH");
  if (call.refusal != kSuccess) return call.refusal;
  if (Card::the().length_at(from) < bytes) return kInvalidValue;
  Card::the().enqueue([=] { return std::memcpy(to, reinterpret_cast<const void*>(from), bytes), kSuccess; });
  return kSuccess;
}
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream) {
  const Call call("cuMemcpyDtoD");
  if (call.refusal != kSuccess) return call.refusal;
  if (Card::the().length_at(from) < bytes || Card::the().length_at(to) < bytes) return kInvalidValue;
  Card::the().enqueue(
      [=] { return std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes), kSuccess; });
  return kSuccess;
}

/// An ELF file, or what the software NVRTC made.
Result cuModuleLoadData(Module* module, const void* image) {
  const Call call("cuModuleLoadData");
  if (call.refusal != kSuccess) return call.refusal;
  if (std::memcmp(image, "\177ELF", 4) != 0 && std::memcmp(image, "SOFT", 4) != 0) return kInvalidImage;
  *module = new CUmod_st;
  return kSuccess;
}
/// foundry_linear_q4_0_5: the kernel linear_q4_0, its function constants 5.
Result cuModuleGetFunction(Function* function, Module, const char* name) {
  const Call call("cuModuleGetFunction");
  if (call.refusal != kSuccess) return call.refusal;
  const std::string text = name, prefix = "foundry_";
  const size_t last = text.rfind('_');
  if (!text.starts_with(prefix) || last < prefix.size()) return kNotFound;
  const std::string kernel = text.substr(prefix.size(), last - prefix.size());
  if (!metal_host::kernels().contains(kernel)) return kNotFound;
  static std::vector<std::unique_ptr<CUfunc_st>> made;
  made.push_back(
      std::make_unique<CUfunc_st>(CUfunc_st{kernel, static_cast<uint32_t>(std::stoul(text.substr(last + 1)))}));
  *function = made.back().get();
  return kSuccess;
}
/// A Hopper's most, 227 KB.
Result cuFuncSetAttribute(Function function, int attribute, int value) {
  const Call call("cuFuncSetAttribute");
  if (call.refusal != kSuccess) return call.refusal;
  if (attribute != kMostSharedBytes || value < 0 || value > 227 << 10) return kInvalidValue;
  function->most_shared = static_cast<unsigned>(value);
  return kSuccess;
}
Result cuLaunchKernel(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream, void** parameters, void**) {
  const Call call("cuLaunchKernel");
  if (call.refusal != kSuccess) return call.refusal;
  if (software_cuda_counts()["cuLaunchKernel"] == software_cuda_settings().refuse_launch_at) return kInvalidValue;
  if (!may_be(grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, *function)) return kInvalidValue;
  metal_cuda::Arguments arguments;
  std::memcpy(&arguments, parameters[0], sizeof arguments);
  Card::the().enqueue([=] {
    return run(*function, arguments, {grid_x, grid_y, grid_z}, static_cast<uint32_t>(block_x), shared_bytes);
  });
  return kSuccess;
}

Result cuGraphCreate(Graph* graph, unsigned) {
  const Call call("cuGraphCreate");
  *graph = new CUgraph_st;
  return call.refusal;
}
Result cuGraphDestroy(Graph graph) {
  const Call call("cuGraphDestroy");
  delete graph;
  return call.refusal;
}
/// Behind nodes of the graph, by their indices.
static bool put_behind(Graph graph, CUgraphNode_st& node, const GraphNode* from, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    const auto found =
        std::find_if(graph->nodes.begin(), graph->nodes.end(), [&](const auto& one) { return one.get() == from[i]; });
    if (found == graph->nodes.end()) return false;
    node.behind.push_back(static_cast<size_t>(found - graph->nodes.begin()));
  }
  return true;
}
Result cuGraphAddKernelNode_v2(GraphNode* node, Graph graph, const GraphNode* behind, size_t n_behind,
                               const KernelNode* kernel) {
  const Call call("cuGraphAddKernelNode");
  if (call.refusal != kSuccess) return call.refusal;
  auto made = std::make_unique<CUgraphNode_st>();
  if (!set(*made, *kernel) || !put_behind(graph, *made, behind, n_behind)) return kInvalidValue;
  *node = made.get();
  graph->nodes.push_back(std::move(made));
  return kSuccess;
}
Result cuGraphAddDependencies_v2(Graph graph, const GraphNode* from, const GraphNode* to, const GraphEdge* edges,
                                 size_t n) {
  const Call call("cuGraphAddDependencies");
  if (call.refusal != kSuccess) return call.refusal;
  for (size_t i = 0; i < n; ++i) {
    if (edges[i].from_port != 1 || edges[i].type != 1) return kInvalidValue;  // only such are asked for
    if (from[i] == to[i] || !put_behind(graph, *to[i], &from[i], 1)) return kInvalidValue;
  }
  return kSuccess;
}
Result cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, unsigned long long) {
  const Call call("cuGraphInstantiate");
  if (call.refusal != kSuccess) return call.refusal;
  if (software_cuda_counts()["cuGraphInstantiate"] == software_cuda_settings().no_graph_at) return kOutOfMemory;
  *exec = new CUgraphExec_st;
  for (const auto& node : graph->nodes) {
    (*exec)->nodes.push_back(*node);
    (*exec)->made_of.push_back(node.get());
  }
  return kSuccess;
}
Result cuGraphExecKernelNodeSetParams_v2(GraphExec exec, GraphNode node, const KernelNode* kernel) {
  const Call call("cuGraphExecKernelNodeSetParams");
  if (call.refusal != kSuccess) return call.refusal;
  if (software_cuda_counts()["cuGraphExecKernelNodeSetParams"] == software_cuda_settings().refuse_set_at)
    return kInvalidValue;
  const auto found = std::find(exec->made_of.begin(), exec->made_of.end(), node);
  if (found == exec->made_of.end()) return kInvalidValue;
  CUgraphNode_st& own = exec->nodes[static_cast<size_t>(found - exec->made_of.begin())];
  return own.function == kernel->function && set(own, *kernel) ? kSuccess : kInvalidValue;
}
/// In an order that is as unlike the one of the nodes as what they wait for allows: the latest that may run is next.
Result cuGraphLaunch(GraphExec exec, Stream) {
  const Call call("cuGraphLaunch");
  if (call.refusal != kSuccess) return call.refusal;
  std::vector<bool> ran(exec->nodes.size());
  for (size_t n = 0; n < ran.size(); ++n) {
    size_t next = ran.size();
    while (next-- > 0) {
      const auto& behind = exec->nodes[next].behind;
      if (!ran[next] && std::all_of(behind.begin(), behind.end(), [&](size_t i) { return ran[i]; })) break;
    }
    ran[next] = true;
    enqueue(exec->nodes[next]);
  }
  return kSuccess;
}
Result cuGraphExecDestroy(GraphExec exec) {
  const Call call("cuGraphExecDestroy");
  delete exec;
  return call.refusal;
}

Result cuStreamCreate(Stream* stream, unsigned) {
  const Call call("cuStreamCreate");
  *stream = new CUstream_st;
  return call.refusal;
}
Result cuStreamDestroy_v2(Stream stream) {
  const Call call("cuStreamDestroy");
  delete stream;
  return call.refusal;
}
Result cuStreamSynchronize(Stream) {
  const Call call("cuStreamSynchronize");
  if (call.refusal != kSuccess) return call.refusal;
  return Card::the().run_until(Card::the().enqueued());
}
Result cuEventCreate(Event* event, unsigned) {
  const Call call("cuEventCreate");
  *event = new CUevent_st;
  return call.refusal;
}
Result cuEventDestroy_v2(Event event) {
  const Call call("cuEventDestroy");
  delete event;
  return call.refusal;
}
Result cuEventRecord(Event event, Stream) {
  const Call call("cuEventRecord");
  event->number = Card::the().enqueued();
  return call.refusal;
}
Result cuEventSynchronize(Event event) {
  const Call call("cuEventSynchronize");
  if (call.refusal != kSuccess) return call.refusal;
  return Card::the().run_until(event->number);
}

}  // extern "C"
