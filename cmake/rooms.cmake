# One static library a room, in the house's order; each links the rooms before it.
# tests/check_layers.py holds the includes to the same order.
#
# -ffp-contract=off is PUBLIC: the order and rounding of every sum is the design's, not the compiler's, and
# inline functions must come out the same in every library that holds a copy of them.
set(warnings -Wall -Wextra)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND warnings $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)  # GCC 12 sees overlaps in std::string that aren't there (GCC bug 105329)
endif()
set(below "")
foreach(room IN ITEMS base formats files gguf graph kv device engine)
  file(GLOB sources CONFIGURE_DEPENDS cpp/${room}/*.cpp)
  if(room STREQUAL device)
    file(GLOB portable CONFIGURE_DEPENDS cpp/device/reference/*.cpp cpp/device/gpu/*.cpp)
    list(APPEND sources ${portable})
  endif()
  if(sources)
    add_library(foundry_${room} STATIC ${sources})
    set(scope PUBLIC)
    target_compile_options(foundry_${room} PRIVATE ${warnings})
  else()
    add_library(foundry_${room} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(foundry_${room} ${scope} cpp metal/include)
  target_compile_options(foundry_${room} ${scope} -ffp-contract=off)
  target_link_libraries(foundry_${room} ${scope} Threads::Threads ${below})
  list(PREPEND below foundry_${room})
endforeach()

# Every room sees the same mutexes, with their check or without; debug builds have it.
target_compile_definitions(foundry_base PUBLIC
  $<$<OR:$<BOOL:${FOUNDRY_CHECK_LOCKS}>,$<CONFIG:Debug>>:FOUNDRY_CHECK_LOCKS>)

# The CPU device compiles each kernel file once for an instruction set; which flags, its own file says.
include(cpp/device/cpu/isa.cmake OPTIONAL)
if(COMMAND foundry_add_cpu_kernels)
  foundry_add_cpu_kernels(foundry_device)
endif()
# Kernels are worth -O3 in a debuggable build too. (Release has it already.)
target_compile_options(foundry_device PRIVATE $<$<CONFIG:RelWithDebInfo>:-O3>)
