// NVIDIA's driver, libcuda.so.1, opened as the process runs: the functions that the device needs, declared here, so
// that a build needs no toolkit and one wheel serves machines with and without a GPU. Source: CUDA Driver API
// reference manual, docs.nvidia.com/cuda/cuda-driver-api; types and numbers are the API's, which keeps them from
// version to version.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace foundry::cuda {

using Result = int;  // CUresult
using Device = int;  // CUdevice
using Address = uint64_t;
using Context = struct CUctx_st*;
using Module = struct CUmod_st*;
using Function = struct CUfunc_st*;
using Stream = struct CUstream_st*;
using Event = struct CUevent_st*;
using Graph = struct CUgraph_st*;
using GraphNode = struct CUgraphNode_st*;
using GraphExec = struct CUgraphExec_st*;

/// CUgraphEdgeData. From a kernel's programmatic port: what is behind may begin when the kernel lets it, and waits for
/// its end itself.
struct GraphEdge {
  unsigned char from_port, to_port, type, reserved[5];
};
inline constexpr GraphEdge kWhenLet{1, 0, 1, {}};

/// CUDA_KERNEL_NODE_PARAMS_v2
struct KernelNode {
  Function function;
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  void** parameters;
  void** extra;
  void* kernel;  // null: the function
  Context context;
};

inline constexpr Result kSuccess = 0, kOutOfMemory = 2;
inline constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CUdevice_attribute
inline constexpr int kMostSharedBytes = 8;                          // CUfunction_attribute
inline constexpr unsigned kPortable = 1, kDeviceMapped = 2;         // of cuMemHostAlloc
inline constexpr unsigned kStreamNonBlocking = 1, kEventWithoutTime = 2;

// The member's name, the library's, and the parameters.
#define FOUNDRY_CUDA_DRIVER(FUNCTION)                                                                                 \
  FUNCTION(init, cuInit, (unsigned flags))                                                                            \
  FUNCTION(version, cuDriverGetVersion, (int* version))                                                               \
  FUNCTION(error_name, cuGetErrorName, (Result error, const char** name))                                             \
  FUNCTION(device_count, cuDeviceGetCount, (int* n))                                                                  \
  FUNCTION(device, cuDeviceGet, (Device * device, int index))                                                         \
  FUNCTION(device_name, cuDeviceGetName, (char* name, int n, Device device))                                          \
  FUNCTION(device_attribute, cuDeviceGetAttribute, (int* value, int attribute, Device device))                        \
  FUNCTION(device_memory, cuDeviceTotalMem_v2, (size_t* bytes, Device device))                                        \
  FUNCTION(retain_context, cuDevicePrimaryCtxRetain, (Context * context, Device device))                              \
  FUNCTION(current_context, cuCtxGetCurrent, (Context * context))                                                     \
  FUNCTION(push_context, cuCtxPushCurrent_v2, (Context context))                                                      \
  FUNCTION(pop_context, cuCtxPopCurrent_v2, (Context * context))                                                      \
  FUNCTION(memory_info, cuMemGetInfo_v2, (size_t* free_bytes, size_t* total_bytes))                                   \
  FUNCTION(allocate, cuMemAlloc_v2, (Address * address, size_t bytes))                                                \
  FUNCTION(free, cuMemFree_v2, (Address address))                                                                     \
  FUNCTION(allocate_host, cuMemHostAlloc, (void** data, size_t bytes, unsigned flags))                                \
  FUNCTION(free_host, cuMemFreeHost, (void* data))                                                                    \
  FUNCTION(host_address, cuMemHostGetDevicePointer_v2, (Address * address, void* data, unsigned flags))               \
  FUNCTION(upload, cuMemcpyHtoDAsync_v2, (Address to, const void* from, size_t bytes, Stream stream))                 \
  FUNCTION(download, cuMemcpyDtoHAsync_v2, (void* to, Address from, size_t bytes, Stream stream))                     \
  FUNCTION(copy, cuMemcpyDtoDAsync_v2, (Address to, Address from, size_t bytes, Stream stream))                       \
  FUNCTION(load_module, cuModuleLoadData, (Module * module, const void* image))                                       \
  FUNCTION(function, cuModuleGetFunction, (Function * function, Module module, const char* name))                     \
  FUNCTION(set_function, cuFuncSetAttribute, (Function function, int attribute, int value))                           \
  FUNCTION(launch, cuLaunchKernel,                                                                                    \
           (Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y, \
            unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters, void** extra))                 \
  FUNCTION(make_graph, cuGraphCreate, (Graph * graph, unsigned flags))                                                \
  FUNCTION(destroy_graph, cuGraphDestroy, (Graph graph))                                                              \
  FUNCTION(add_kernel, cuGraphAddKernelNode_v2,                                                                       \
           (GraphNode * node, Graph graph, const GraphNode* behind, size_t n_behind, const KernelNode* kernel))       \
  FUNCTION(instantiate, cuGraphInstantiateWithFlags, (GraphExec * exec, Graph graph, unsigned long long flags))       \
  FUNCTION(set_kernel, cuGraphExecKernelNodeSetParams_v2, (GraphExec exec, GraphNode node, const KernelNode* kernel)) \
  FUNCTION(launch_graph, cuGraphLaunch, (GraphExec exec, Stream stream))                                              \
  FUNCTION(destroy_exec, cuGraphExecDestroy, (GraphExec exec))                                                        \
  FUNCTION(make_stream, cuStreamCreate, (Stream * stream, unsigned flags))                                            \
  FUNCTION(destroy_stream, cuStreamDestroy_v2, (Stream stream))                                                       \
  FUNCTION(wait_for_stream, cuStreamSynchronize, (Stream stream))                                                     \
  FUNCTION(make_event, cuEventCreate, (Event * event, unsigned flags))                                                \
  FUNCTION(destroy_event, cuEventDestroy_v2, (Event event))                                                           \
  FUNCTION(record, cuEventRecord, (Event event, Stream stream))                                                       \
  FUNCTION(wait_for_event, cuEventSynchronize, (Event event))

// Those that older drivers lack (before CUDA 12.3), and then are null.
#define FOUNDRY_CUDA_NEWER_DRIVER(FUNCTION)      \
  FUNCTION(add_edges, cuGraphAddDependencies_v2, \
           (Graph graph, const GraphNode* from, const GraphNode* to, const GraphEdge* edges, size_t n))

struct Driver {
#define FOUNDRY_MEMBER(member, name, parameters) Result(*member) parameters = nullptr;
  FOUNDRY_CUDA_DRIVER(FOUNDRY_MEMBER)
  FOUNDRY_CUDA_NEWER_DRIVER(FOUNDRY_MEMBER)
#undef FOUNDRY_MEMBER
  /// "CUDA_ERROR_ILLEGAL_ADDRESS"
  std::string name_of(Result error) const;
};

/// Opened and initialised once for the process; null where there is none, or where it can't be used, and `why` says so.
const Driver* driver(std::string* why = nullptr);

}  // namespace foundry::cuda
