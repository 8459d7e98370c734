// 4-bit floats as gpt-oss's folders have them become ggml's blocks.
#include <string.h>

#include "kernels.h"

typedef uint8_t bytes8 __attribute__((vector_size(8)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));

void ckernels_merge_mxfp4(
    const uint8_t *blocks, const uint8_t *scales, uint8_t *out, size_t count) {
  for (size_t block = 0; block < count; block++, blocks += 16, out += 17) {
    // A byte holds two neighbours; in the result, values 16 apart.
    bytes8 first, second;
    memcpy(&first, blocks, 8);
    memcpy(&second, blocks + 8, 8);
    const bytes8 even = (first & 15) | second << 4, odd = first >> 4 | (second & 240);
    const bytes16 both = __builtin_shufflevector(
        even, odd, 0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    out[0] = scales[block];
    memcpy(out + 1, &both, 16);
  }
}
