#include "software_cuda/machine.h"

#include <cstdlib>
#include <cstring>

namespace {

software_cuda::Settings from_environment() {
  software_cuda::Settings settings;
  const std::map<std::string, uint64_t*> words{{"gpus", &settings.gpus},
                                               {"capability", &settings.capability},
                                               {"memory", &settings.memory},
                                               {"version", &settings.version},
                                               {"illegal_at", &settings.illegal_at},
                                               {"no_memory_at", &settings.no_memory_at},
                                               {"refuse_launch_at", &settings.refuse_launch_at},
                                               {"refuse_set_at", &settings.refuse_set_at},
                                               {"no_graph_at", &settings.no_graph_at}};
  const char* found = std::getenv("FOUNDRY_SOFTWARE_CUDA");
  const std::string text = found == nullptr ? "" : found;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find(' ', at), text.size());
    const std::string word = text.substr(at, end - at);
    const size_t equals = word.find('=');
    if (const auto known = words.find(word.substr(0, equals)); known != words.end() && equals != std::string::npos)
      *known->second = std::strtoull(word.c_str() + equals + 1, nullptr, 10);
    at = end + 1;
  }
  return settings;
}

}  // namespace

software_cuda::Settings& software_cuda_settings() {
  static software_cuda::Settings settings = from_environment();
  return settings;
}

software_cuda::Counts& software_cuda_counts() {
  static software_cuda::Counts counts;
  return counts;
}
