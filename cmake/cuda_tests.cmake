# The kernels of metal/ on an NVIDIA GPU: translated, built by nvcc, run by the same kernel tests; and as a library for the benches.
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES native)
endif()
set(cuda_dir ${CMAKE_CURRENT_BINARY_DIR}/metal_cuda)
set(translate ${CMAKE_CURRENT_SOURCE_DIR}/tests/metal_on_linux/translate.py)
file(GLOB kernel_headers CONFIGURE_DEPENDS metal/include/*.h)
set(cuda_headers "")
foreach(header IN LISTS kernel_headers)
  get_filename_component(name ${header} NAME)
  add_custom_command(OUTPUT ${cuda_dir}/include/${name}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${cuda_dir}/include
    COMMAND Python3::Interpreter ${translate} ${header} --target cuda -o ${cuda_dir}/include/${name}
    DEPENDS ${header} ${translate} VERBATIM)
  list(APPEND cuda_headers ${cuda_dir}/include/${name})
endforeach()
set(cuda_sources "")
foreach(kernel IN LISTS metal_kernels)
  get_filename_component(name ${kernel} NAME_WE)
  add_custom_command(OUTPUT ${cuda_dir}/${name}.cu
    COMMAND Python3::Interpreter ${translate} ${kernel} --target cuda -o ${cuda_dir}/${name}.cu
    DEPENDS ${kernel} ${translate} ${cuda_headers} VERBATIM)
  list(APPEND cuda_sources ${cuda_dir}/${name}.cu)
endforeach()
add_library(foundry_cuda_kernels SHARED ${cuda_sources} cpp/device/cuda/launch.cu)
set_target_properties(foundry_cuda_kernels PROPERTIES CUDA_STANDARD 20 CXX_VISIBILITY_PRESET default CUDA_VISIBILITY_PRESET default)
target_include_directories(foundry_cuda_kernels PRIVATE ${cuda_dir}/include tests/metal_on_linux/cuda cpp)
# Left to itself, nvcc stops at 168 registers and has attention_prefill wait for each load: 93 TFLOP/s instead of 157. (Decode is the
# better for stopping there.)
set_source_files_properties(${cuda_dir}/attention_prefill.cu PROPERTIES COMPILE_OPTIONS -maxrregcount=255)
# Order and rounding are the source's: nothing is contracted.
target_compile_options(foundry_cuda_kernels PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false -lineinfo -diag-suppress 177,550>)

add_executable(foundry_cuda_tests ${kernel_tests} tests/kernels/cuda_main.cpp cpp/device/cuda/cuda_queue.cpp)
target_include_directories(foundry_cuda_tests PRIVATE ${DOCTEST_INCLUDE} tests)
target_link_libraries(foundry_cuda_tests PRIVATE foundry_engine foundry_cuda_kernels CUDA::cudart)
target_compile_definitions(foundry_cuda_tests PRIVATE ${cases})
