# The Metal device: Objective-C++, and the source of the kernels. On Linux, for tests, a software Metal takes Apple's
# place.
if(NOT APPLE)
  find_program(FOUNDRY_CLANGXX NAMES clang++-22 clang++-21 clang++-20 clang++-19 clang++-18 clang++-17 clang++-16 clang++
    REQUIRED)
  set(CMAKE_OBJCXX_COMPILER ${FOUNDRY_CLANGXX} CACHE FILEPATH "")
endif()
enable_language(OBJCXX)
set(CMAKE_OBJCXX_STANDARD 20)
set(CMAKE_OBJCXX_VISIBILITY_PRESET hidden)
find_package(Python3 COMPONENTS Interpreter REQUIRED)

file(GLOB metal_kernels CONFIGURE_DEPENDS metal/*.metal)
file(GLOB metal_headers CONFIGURE_DEPENDS metal/include/*.h cpp/formats/*.def)
set(kernel_source ${CMAKE_CURRENT_BINARY_DIR}/kernel_source.cpp)
add_custom_command(OUTPUT ${kernel_source}
  COMMAND Python3::Interpreter ${CMAKE_CURRENT_SOURCE_DIR}/cmake/embed_kernels.py ${CMAKE_CURRENT_SOURCE_DIR}/metal ${kernel_source}
  DEPENDS ${metal_kernels} ${metal_headers} cmake/embed_kernels.py VERBATIM)

file(GLOB metal_sources CONFIGURE_DEPENDS cpp/device/metal/*.mm)
target_sources(foundry_device PRIVATE ${metal_sources} ${kernel_source})
target_compile_definitions(foundry_device PRIVATE FOUNDRY_METAL)
set(objcxx_options -fobjc-arc -fexceptions -Wno-unknown-warning-option)
if(APPLE)
  target_link_libraries(foundry_device PUBLIC "-framework Foundation" "-framework Metal"
    "-framework CoreGraphics")  # loaded, or MTLCreateSystemDefaultDevice finds nothing in a command-line tool
else()
  list(APPEND objcxx_options -fobjc-runtime=gnustep-2.0 "SHELL:-Xclang -fobjc-dispatch-method=legacy" -fblocks)
  target_include_directories(foundry_device PRIVATE tests/metal_on_linux/apple)
endif()
target_compile_options(foundry_device PRIVATE "$<$<COMPILE_LANGUAGE:OBJCXX>:${objcxx_options}>")

# Kernels compiled with the wheel, where Apple's Metal compiler is at hand (a download of its own since Xcode 26).
# Without, or on a system that does not take them, the device compiles from source. For macOS 14 and its language, so
# that every later one takes them.
if(APPLE AND SKBUILD)
  execute_process(COMMAND xcrun -sdk macosx metal --version RESULT_VARIABLE no_metal_compiler OUTPUT_QUIET ERROR_QUIET)
  if(NOT no_metal_compiler)
    set(airs "")
    foreach(kernel IN LISTS metal_kernels)
      get_filename_component(name ${kernel} NAME_WE)
      set(air ${CMAKE_CURRENT_BINARY_DIR}/${name}.air)
      add_custom_command(OUTPUT ${air}
        COMMAND xcrun -sdk macosx metal -std=metal3.1 -mmacosx-version-min=14.0 -fno-fast-math
          -I${CMAKE_CURRENT_SOURCE_DIR}/metal/include -I${CMAKE_CURRENT_SOURCE_DIR}/cpp -c ${kernel} -o ${air}
        DEPENDS ${kernel} ${metal_headers} VERBATIM)
      list(APPEND airs ${air})
    endforeach()
    set(kernel_library ${CMAKE_CURRENT_BINARY_DIR}/kernels.metallib)
    add_custom_command(OUTPUT ${kernel_library} COMMAND xcrun -sdk macosx metallib ${airs} -o ${kernel_library}
      DEPENDS ${airs} VERBATIM)
    add_custom_target(foundry_kernel_library ALL DEPENDS ${kernel_library})
    install(FILES ${kernel_library} DESTINATION foundry)
  endif()
endif()
