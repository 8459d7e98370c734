#pragma once
#include <stddef.h>
#include <stdint.h>

/// Opens a file read-only, with O_DIRECT if `direct`: Glibc's module hides the flag. Returns the
/// descriptor or -errno.
int clinux_open_read_only(const char *_Nonnull path, int direct);

/// The alignment O_DIRECT asks of file offsets (and lengths) and of memory, from statx(2)
/// STATX_DIOALIGN (Linux 6.1). Returns 0, or -errno where the kernel does not say.
int clinux_direct_alignment(
    int descriptor, uint32_t *_Nonnull offset_alignment, uint32_t *_Nonnull memory_alignment);

/// Sleeps while *word == expected; may return early.
void clinux_futex_wait(uint32_t *_Nonnull word, uint32_t expected);
/// Wakes at most `count` sleepers on `word`.
void clinux_futex_wake(uint32_t *_Nonnull word, int32_t count);

/// The processors of this thread's affinity mask; 0 if the kernel does not say.
int clinux_affinity_count(void);

/// Gives memory back to the system that was freed and that malloc has kept.
void clinux_give_back_freed_memory(void);

/// Names the calling thread, for tools that list threads; a name is at most 15 bytes.
void clinux_set_thread_name(const char *_Nonnull name);

/// Tells the processor that the caller spins.
static inline void clinux_cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// Gives up the right to lock memory beyond RLIMIT_MEMLOCK (CAP_IPC_LOCK), for tests of what
/// happens without it. Returns 0 or -errno.
int clinux_drop_ipc_lock(void);
