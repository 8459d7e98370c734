#pragma once

/// Counts from zero every block that any thread of the process asks the heap for, until
/// `allocation_counter_stop`.
void allocation_counter_start(void);

/// Stops counting. Returns the number of blocks asked for since the start.
long allocation_counter_stop(void);

/// Where one of the first counted blocks was asked for, as lines of text.
///
/// `index` is below 4 and below what `allocation_counter_stop` returned. The text is the caller's
/// to free; NULL if there is no memory for it.
char *_Nullable allocation_counter_origin(int index);
