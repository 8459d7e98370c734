#pragma once
// <features.h> goes first, with the feature-test macros of Swift's Glibc module, so that both modules
// see one `cpu_set_t`.
#include <features.h>
#include <cblas.h>

// LAPACK, as OpenBLAS has it (Debian keeps the declarations elsewhere): the Cholesky factor of a
// symmetric matrix, and the solution of the system that it is of.
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info);
void dpotrs_(const char *uplo, const int *n, const int *nrhs, const double *a, const int *lda,
             double *b, const int *ldb, int *info);
