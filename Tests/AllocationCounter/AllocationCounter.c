// The heap's functions, in place of the C library's for the whole program that links this file.
// Each notes the call while the counter runs and passes it on to the function it stands for, which
// glibc exports under a second name. `free` counts nothing, so the library's own serves.
#include "AllocationCounter.h"

#include <errno.h>
#include <execinfo.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

enum { origin_count = 4, frame_count = 24 };

static atomic_bool is_counting;
static atomic_long block_count;
static void *frames[origin_count][frame_count];
static int frames_used[origin_count];

void allocation_counter_start(void) {
  // The first call loads the unwinder, which allocates.
  backtrace(frames[0], frame_count);
  atomic_store(&block_count, 0);
  atomic_store(&is_counting, 1);
}

long allocation_counter_stop(void) {
  atomic_store(&is_counting, 0);
  return atomic_load(&block_count);
}

char *allocation_counter_origin(int index) {
  char **lines = backtrace_symbols(frames[index], frames_used[index]);
  char *text = NULL;
  size_t size = 0;
  FILE *stream = lines ? open_memstream(&text, &size) : NULL;
  if (stream) {
    for (int i = 0; i < frames_used[index]; i++) fprintf(stream, "%s\n", lines[i]);
    fclose(stream);
  }
  free(lines);
  return text;
}

static void note(void) {
  if (!atomic_load_explicit(&is_counting, memory_order_relaxed)) return;
  long index = atomic_fetch_add(&block_count, 1);
  if (index < origin_count) frames_used[index] = backtrace(frames[index], frame_count);
}

void *malloc(size_t size) {
  note();
  return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  note();
  return __libc_calloc(count, size);
}

void *realloc(void *block, size_t size) {
  note();
  return __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size) {
  note();
  return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  note();
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size) {
  if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0)
    return EINVAL;
  note();
  void *memory = __libc_memalign(alignment, size);
  if (!memory) return ENOMEM;
  *block = memory;
  return 0;
}
