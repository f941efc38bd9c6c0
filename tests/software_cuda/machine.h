// A GPU of NVIDIA's in software, behind the functions of the driver that the device uses. Its memory is out of the
// host's reach but while it runs, and nothing runs before somebody waits for it, so what is read too early is seen.
// Kernels are those of metal/, translated for the host.
//
// FOUNDRY_SOFTWARE_CUDA says what the machine is and what goes wrong: words such as "gpus=2", "capability=75",
// "memory=1000000", "version=12080", "illegal_at=100" (the launch with that number fails with
// CUDA_ERROR_ILLEGAL_ADDRESS), "refuse_launch_at=7" (that call of cuLaunchKernel is refused), "refuse_set_at=2" (that
// of cuGraphExecKernelNodeSetParams is), "no_graph_at=1" (that call of cuGraphInstantiate finds no memory),
// "no_memory_at=5" (that allocation fails). Tests in the same process have the functions
// below.
#pragma once
#include <cstdint>
#include <map>
#include <string>

namespace software_cuda {

struct Settings {
  uint64_t gpus = 1, capability = 90, memory = uint64_t{8} << 30, version = 13000;
  uint64_t illegal_at = 0, refuse_launch_at = 0, refuse_set_at = 0, no_graph_at = 0, no_memory_at = 0;  // 0: never
};

/// What this process has done, by the function's name; "launches" are those that ran.
using Counts = std::map<std::string, uint64_t>;

}  // namespace software_cuda

extern "C" {
/// May be changed as the process runs.
software_cuda::Settings& software_cuda_settings();
software_cuda::Counts& software_cuda_counts();
}
