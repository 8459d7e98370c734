// The sum of 16 lanes in one fixed order, once per instruction set: included in the sections of the float kernels,
// with SET(name) naming the section's copy.
ALWAYS_INLINE float SET(sum16)(lanes v) {
  float s[8];
  for (int i = 0; i < 8; i++) s[i] = v[i] + v[i + 8];
  return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}
