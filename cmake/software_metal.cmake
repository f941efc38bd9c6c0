# The software Metal of the tests: Apple's framework for the Metal device on Linux, over the translated kernels
# (metal_tests.cmake).
set(software tests/metal_on_linux)
file(GLOB software_sources CONFIGURE_DEPENDS ${software}/objc/*.cpp ${software}/software/*.cpp ${software}/software/*.mm)
list(FILTER software_sources EXCLUDE REGEX "/rules\\.mm$")
add_library(foundry_software_metal OBJECT ${software_sources})
target_include_directories(foundry_software_metal PRIVATE tests cpp metal/include ${software}/apple)
target_compile_options(foundry_software_metal PRIVATE ${warnings} "$<$<COMPILE_LANGUAGE:OBJCXX>:${objcxx_options}>")
set_source_files_properties(${software}/software/foundation.mm PROPERTIES COMPILE_OPTIONS -fno-objc-arc)
# Registrations and classes that nobody names: objects, all of them.
target_link_libraries(foundry_device PUBLIC $<TARGET_OBJECTS:foundry_software_metal> $<TARGET_OBJECTS:foundry_metal_kernels>
  $<TARGET_OBJECTS:foundry_metal_runtime>)

if(FOUNDRY_BUILD_TESTS)
  add_executable(foundry_metal_rules ${software}/software/rules.mm)
  target_include_directories(foundry_metal_rules PRIVATE tests ${software}/apple)
  target_compile_options(foundry_metal_rules PRIVATE ${warnings} "$<$<COMPILE_LANGUAGE:OBJCXX>:${objcxx_options}>")
  target_link_libraries(foundry_metal_rules PRIVATE foundry_engine)
endif()
