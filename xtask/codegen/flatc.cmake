# Read by CMake through CMAKE_TOOLCHAIN_FILE, which `cargo xtask codegen` sets while it builds flatc.
# The compiler alone is wanted: without its tests, its C++ library and debug symbols the build takes
# a third of the time.
set(FLATBUFFERS_BUILD_TESTS OFF CACHE BOOL "" FORCE)
set(FLATBUFFERS_BUILD_FLATLIB OFF CACHE BOOL "" FORCE)
set(CMAKE_CXX_FLAGS_DEBUG "" CACHE STRING "" FORCE)
