#pragma once
// <features.h> goes first, with the feature-test macros of Swift's Glibc module, so that both modules
// see one `cpu_set_t`.
#include <features.h>
#include <cblas.h>
