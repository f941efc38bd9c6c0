# The CUDA device: nothing of CUDA is needed to build it. The kernels are translated and embedded as source, which
# NVRTC compiles as the process runs; the driver and NVRTC are opened by dlopen.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
file(GLOB cuda_kernels CONFIGURE_DEPENDS metal/*.metal metal/nvidia/*.metal metal/include/*.h metal/translate/*.h metal/translate/*.py metal/translate/cuda/*
  cpp/formats/*.def)
set(cuda_source ${CMAKE_CURRENT_BINARY_DIR}/cuda_kernel_source.cpp)
add_custom_command(OUTPUT ${cuda_source}
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed_cuda.py ${CMAKE_CURRENT_SOURCE_DIR}/metal ${cuda_source}
  DEPENDS ${cuda_kernels} cmake/embed_cuda.py cmake/embed_kernels.py VERBATIM)
file(GLOB cuda_sources CONFIGURE_DEPENDS cpp/device/cuda/*.cpp)
target_sources(foundry_device PRIVATE ${cuda_sources} ${cuda_source})
target_include_directories(foundry_device PRIVATE metal/translate/cuda)
target_compile_definitions(foundry_device PRIVATE FOUNDRY_CUDA)
target_link_libraries(foundry_device PUBLIC ${CMAKE_DL_LIBS})
