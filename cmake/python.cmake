# The extension foundry._core and its type stub. nanobind is linked statically: the wheel needs no other library.
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
execute_process(COMMAND "${Python_EXECUTABLE}" -m nanobind --cmake_dir
                OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE nanobind_ROOT)
find_package(nanobind CONFIG REQUIRED)

file(GLOB bindings CONFIGURE_DEPENDS cpp/bindings/*.cpp)
nanobind_add_module(_core NB_STATIC ${bindings})
target_link_libraries(_core PRIVATE foundry_engine)
target_compile_options(_core PRIVATE ${warnings})
if(FOUNDRY_TEST_DEVICES)
  target_sources(_core PRIVATE tests/shadow/reach.cpp tests/shadow/shadow_device.cpp tests/shadow/registered.cpp)
  target_include_directories(_core PRIVATE tests)
endif()
install(TARGETS _core LIBRARY DESTINATION foundry)

# The stub comes from importing the module, which a cross build can't do; without it only editors lose.
option(FOUNDRY_STUBS "The extension's type stub" ON)
if(FOUNDRY_STUBS AND NOT CMAKE_CROSSCOMPILING)
  nanobind_add_stub(_core_stub MODULE _core OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/_core.pyi"
                    PYTHON_PATH $<TARGET_FILE_DIR:_core> DEPENDS _core)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/_core.pyi" DESTINATION foundry)
endif()
