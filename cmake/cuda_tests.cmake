# Built where they are named. The kernel tests on an NVIDIA GPU, on the device as users have it; and its kernels by
# name, for the benches.
file(GLOB kernel_tests CONFIGURE_DEPENDS tests/kernels/*_test.cpp)
add_executable(foundry_cuda_tests EXCLUDE_FROM_ALL ${kernel_tests} tests/kernels/cuda_main.cpp)
target_include_directories(foundry_cuda_tests PRIVATE ${DOCTEST_INCLUDE} tests)
target_link_libraries(foundry_cuda_tests PRIVATE foundry_engine)
target_compile_options(foundry_cuda_tests PRIVATE ${tests_own})
target_compile_definitions(foundry_cuda_tests PRIVATE ${cases})

# Every kernel by NVRTC, without a GPU (tests/nvrtc).
add_executable(foundry_nvrtc_compile EXCLUDE_FROM_ALL tests/nvrtc/compile.cpp)
target_link_libraries(foundry_nvrtc_compile PRIVATE foundry_device)
target_compile_options(foundry_nvrtc_compile PRIVATE ${warnings})

# Its kernels by name, for benches in Python (bench/kernels/gpu_attention.py).
add_library(foundry_cuda_launch SHARED EXCLUDE_FROM_ALL bench/kernels/cuda/launch.cpp)
target_include_directories(foundry_cuda_launch PRIVATE metal/translate/cuda)
target_link_libraries(foundry_cuda_launch PRIVATE foundry_device)
target_compile_options(foundry_cuda_launch PRIVATE ${warnings})

if(FOUNDRY_SOFTWARE_CUDA)  # linked to the driver, so that tests see its counts: who opens it by name then has the same one
  add_executable(foundry_software_cuda_tests EXCLUDE_FROM_ALL tests/cpp/main.cpp tests/software_cuda/cuda_queue_test.cpp
                 tests/software_cuda/cancelled_test.cpp)
  target_include_directories(foundry_software_cuda_tests PRIVATE ${DOCTEST_INCLUDE} tests)
  target_link_libraries(foundry_software_cuda_tests PRIVATE foundry_engine foundry_software_cuda foundry_software_nvrtc)
  target_link_options(foundry_software_cuda_tests PRIVATE "LINKER:--no-as-needed")
  target_compile_options(foundry_software_cuda_tests PRIVATE ${warnings})
endif()
