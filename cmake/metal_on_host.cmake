# The kernels of metal/ on the host: translated, built with the compiler at hand, and run by fibers.
find_package(Python3 COMPONENTS Interpreter REQUIRED)
set(metal_dir tests/metal_on_linux)
set(translate ${CMAKE_CURRENT_SOURCE_DIR}/metal/translate/translate.py)
file(GLOB metal_kernels CONFIGURE_DEPENDS metal/*.metal metal/nvidia/*.metal)
file(GLOB metal_headers CONFIGURE_DEPENDS
  metal/include/*.h cpp/formats/*.def metal/translate/*.h ${metal_dir}/host/*.h)
set(translated "")
set(translated_nvidia "")  # that Metal has not
foreach(kernel IN LISTS metal_kernels)
  get_filename_component(name ${kernel} NAME_WE)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/metal_host/${name}.cpp)
  add_custom_command(OUTPUT ${out}
    COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/metal_host
    COMMAND Python3::Interpreter ${translate} ${kernel} --target host -o ${out}
    DEPENDS ${kernel} ${translate} VERBATIM)
  set_property(SOURCE ${out} APPEND PROPERTY OBJECT_DEPENDS "${metal_headers};${CMAKE_CURRENT_SOURCE_DIR}/${metal_dir}/host/metal_stdlib")
  if(kernel MATCHES "/nvidia/")
    list(APPEND translated_nvidia ${out})
  else()
    list(APPEND translated ${out})
  endif()
endforeach()
# An object library: kernels register themselves, and a linker would leave out an archive's unreferenced members.
add_library(foundry_metal_kernels OBJECT ${translated})
target_include_directories(foundry_metal_kernels PRIVATE ${metal_dir}/host metal/translate metal/include cpp)
target_compile_options(foundry_metal_kernels PRIVATE -ffp-contract=off -fno-strict-aliasing -Wno-unknown-pragmas)
add_library(foundry_metal_runtime OBJECT ${metal_dir}/host/runtime.cpp ${metal_dir}/host/fiber.cpp)
target_compile_options(foundry_metal_runtime PRIVATE ${warnings})
if(CMAKE_CXX_FLAGS MATCHES "fsanitize=thread")  # it switches stacks, and tells the sanitizer so
  target_compile_options(foundry_metal_runtime PRIVATE -fno-sanitize=thread)
  target_compile_definitions(foundry_metal_runtime PRIVATE FOUNDRY_TSAN_FIBERS)
endif()
