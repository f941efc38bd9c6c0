# The kernel tests on the host: each case as "metal:host", and, where there is the software Metal, as "metal", through
# the real device.
set(kernels_on_host $<TARGET_OBJECTS:foundry_metal_kernels> $<TARGET_OBJECTS:foundry_metal_runtime>)
if(FOUNDRY_SOFTWARE_METAL)
  set(kernels_on_host "")  # the device has them
endif()
file(GLOB kernel_tests CONFIGURE_DEPENDS tests/kernels/*_test.cpp)
if(FOUNDRY_SOFTWARE_METAL)
  list(APPEND kernel_tests ${metal_dir}/metal_device_test.cpp)
endif()
add_executable(foundry_metal_tests ${kernel_tests} ${metal_dir}/main.cpp ${metal_dir}/host_queue.cpp
  ${kernels_on_host})
target_include_directories(foundry_metal_tests PRIVATE ${DOCTEST_INCLUDE} tests)
target_link_libraries(foundry_metal_tests PRIVATE foundry_engine)
target_compile_options(foundry_metal_tests PRIVATE ${tests_own})
target_compile_definitions(foundry_metal_tests PRIVATE ${cases})
add_test(NAME metal_on_host COMMAND foundry_metal_tests)
set_tests_properties(metal_on_host PROPERTIES LABELS metal TIMEOUT 1800)
if(FOUNDRY_SOFTWARE_METAL)
  target_compile_definitions(foundry_metal_tests PRIVATE FOUNDRY_METAL)
endif()
