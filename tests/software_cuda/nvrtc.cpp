// libnvrtc.so.13 for tests: it compiles nothing, and says that it did. FOUNDRY_SOFTWARE_NVRTC_LOG names a file that
// has a line for each.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

struct _nvrtcProgram {
  std::string source, name, image;
};
using Program = _nvrtcProgram*;

extern "C" {

int nvrtcVersion(int* major, int* minor) {
  *major = 13, *minor = 0;
  return 0;
}
int nvrtcGetNumSupportedArchs(int* n) {
  *n = 4;
  return 0;
}
int nvrtcGetSupportedArchs(int* all) {
  const int known[] = {75, 80, 90, 120};
  std::memcpy(all, known, sizeof known);
  return 0;
}
int nvrtcCreateProgram(Program* program, const char* source, const char* name, int, const char* const*,
                       const char* const*) {
  *program = new _nvrtcProgram{source, name, {}};
  return 0;
}
int nvrtcDestroyProgram(Program* program) {
  delete *program;
  *program = nullptr;
  return 0;
}
int nvrtcCompileProgram(Program program, int n_options, const char* const* options) {
  const size_t entry = program->source.rfind("FOUNDRY_ENTRY(");
  program->image = "SOFT" + program->source.substr(entry);
  for (int i = 0; i < n_options; ++i) program->image += std::string(" ") + options[i];
  if (const char* log = std::getenv("FOUNDRY_SOFTWARE_NVRTC_LOG")) {
    if (std::FILE* file = std::fopen(log, "a")) {
      std::fprintf(file, "%s %s", program->name.c_str(), program->source.c_str() + entry);
      std::fclose(file);
    }
  }
  return 0;
}
int nvrtcGetProgramLogSize(Program, size_t* bytes) {
  *bytes = 1;
  return 0;
}
int nvrtcGetProgramLog(Program, char* log) {
  *log = 0;
  return 0;
}
int nvrtcGetCUBINSize(Program program, size_t* bytes) {
  *bytes = program->image.size();
  return 0;
}
int nvrtcGetCUBIN(Program program, char* cubin) {
  std::memcpy(cubin, program->image.data(), program->image.size());
  return 0;
}

}  // extern "C"
