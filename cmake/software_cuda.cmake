# The software CUDA of the tests: libcuda.so.1 over the translated kernels, and a libnvrtc.so.13 that compiles
# nothing. Who has their folder in LD_LIBRARY_PATH has a GPU (tests/software_cuda/machine.h).
set(software_cuda_dir ${CMAKE_BINARY_DIR}/software_cuda)
add_library(foundry_cuda_host_kernels OBJECT EXCLUDE_FROM_ALL ${translated} ${translated_nvidia})
target_include_directories(foundry_cuda_host_kernels PRIVATE ${metal_dir}/host metal/translate metal/include cpp)
target_compile_options(foundry_cuda_host_kernels PRIVATE -ffp-contract=off -fno-strict-aliasing -Wno-unknown-pragmas)
target_compile_definitions(foundry_cuda_host_kernels PRIVATE FOUNDRY_MANY_REGISTERS)
add_library(foundry_software_cuda SHARED EXCLUDE_FROM_ALL tests/software_cuda/driver.cpp tests/software_cuda/card.cpp
  tests/software_cuda/machine.cpp tests/shadow/reach.cpp $<TARGET_OBJECTS:foundry_cuda_host_kernels>
  $<TARGET_OBJECTS:foundry_metal_runtime>)
target_include_directories(foundry_software_cuda PRIVATE tests cpp metal/translate/cuda)
target_compile_options(foundry_software_cuda PRIVATE ${warnings})
set_target_properties(foundry_software_cuda PROPERTIES OUTPUT_NAME cuda SOVERSION 1 CXX_VISIBILITY_PRESET default
  LIBRARY_OUTPUT_DIRECTORY ${software_cuda_dir})
add_library(foundry_software_nvrtc SHARED EXCLUDE_FROM_ALL tests/software_cuda/nvrtc.cpp)
target_compile_options(foundry_software_nvrtc PRIVATE ${warnings})
set_target_properties(foundry_software_nvrtc PROPERTIES OUTPUT_NAME nvrtc SOVERSION 13 CXX_VISIBILITY_PRESET default
  LIBRARY_OUTPUT_DIRECTORY ${software_cuda_dir})
