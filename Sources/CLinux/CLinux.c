// The calls that need _GNU_SOURCE, which must not be defined where Swift imports Glibc.
#define _GNU_SOURCE
#include "CLinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int clinux_open_read_only(const char *path, int direct) {
  // Without O_NONBLOCK, opening a named pipe waits for somebody to write to it.
  int flags = O_RDONLY | O_CLOEXEC | (direct ? O_DIRECT : 0);
  int descriptor;
  do {
    descriptor = open(path, flags | O_NONBLOCK);
  } while (descriptor < 0 && errno == EINTR);
  if (descriptor < 0) return -errno;
  // Reads themselves may wait: io_uring tells the difference even for regular files.
  if (fcntl(descriptor, F_SETFL, flags & ~O_CLOEXEC) != 0) {
    int code = errno;
    close(descriptor);
    return -code;
  }
  return descriptor;
}

// Debian 12's headers are older than the flag, whose place in the buffer is fixed by the kernel:
// struct statx in include/uapi/linux/stat.h.
#define CLINUX_STATX_DIOALIGN 0x2000U
enum { clinux_memory_align_at = 0x98, clinux_offset_align_at = 0x9c };

int clinux_direct_alignment(
    int descriptor, uint32_t *offset_alignment, uint32_t *memory_alignment) {
  union {
    struct statx fields;
    uint32_t words[64];
  } buffer = {0};
  if (syscall(
          SYS_statx, descriptor, "", AT_EMPTY_PATH, CLINUX_STATX_DIOALIGN, &buffer.fields) != 0)
    return -errno;
  if (!(buffer.fields.stx_mask & CLINUX_STATX_DIOALIGN)) return -EOPNOTSUPP;
  *memory_alignment = buffer.words[clinux_memory_align_at / 4];
  *offset_alignment = buffer.words[clinux_offset_align_at / 4];
  return *memory_alignment && *offset_alignment ? 0 : -EOPNOTSUPP;
}

void clinux_futex_wait(uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, 0, 0, 0);
}

void clinux_futex_wake(uint32_t *word, int32_t count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
}

int clinux_affinity_count(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}

void clinux_give_back_freed_memory(void) { malloc_trim(0); }

void clinux_set_thread_name(const char *name) { pthread_setname_np(pthread_self(), name); }

int clinux_drop_ipc_lock(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &header, data) != 0) return -errno;
  data[0].effective &= ~(1u << CAP_IPC_LOCK);
  return syscall(SYS_capset, &header, data) == 0 ? 0 : -errno;
}
