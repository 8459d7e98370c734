// Vectors of 16 floats; the compiler splits them where registers are narrower.
#pragma once
#include <string.h>

// Every function that takes 64-byte vectors is inlined, so no call passes one across an ABI.
#pragma clang diagnostic ignored "-Wpsabi"

typedef float lanes __attribute__((vector_size(64)));

#define load16(pointer) ({ lanes loaded; memcpy(&loaded, (pointer), 64); loaded; })
#define store16(pointer, value) ({ lanes stored = (value); memcpy((pointer), &stored, 64); })
