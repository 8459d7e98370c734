#pragma once
// liburing.h defines _XOPEN_SOURCE. <features.h> goes first, with the feature-test macros of Swift's
// Glibc module, so that both modules see one `fd_set`.
#include <features.h>
#include <liburing.h>

/// Swift does not import the IOSQE_* shifts.
static inline unsigned cliburing_sqe_fixed_file(void) { return IOSQE_FIXED_FILE; }
