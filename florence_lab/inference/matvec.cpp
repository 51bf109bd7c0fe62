// The product of a matrix with one vector, as fast as the matrix is read from memory. See matvec.py.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bf16 {
  uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(bf16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

inline void store(float value, float* target) { *target = value; }

inline void store(float value, bf16* target) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
  // to the nearest number, and of two equally near ones to the even one
  target->bits = static_cast<uint16_t>(is_nan ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

constexpr int64_t kLanes = 64;  // sums that do not wait for each other: four registers of 16 numbers

template <typename T>
inline float dot(const T* __restrict w, const float* __restrict x, int64_t columns) {
  float sums[kLanes] = {0};
  int64_t i = 0;
  for (; i + kLanes <= columns; i += kLanes)
    for (int64_t k = 0; k < kLanes; ++k) sums[k] += to_float(w[i + k]) * x[i + k];
  float sum = 0;
  for (; i < columns; ++i) sum += to_float(w[i]) * x[i];
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t k = 0; k < half; ++k) sums[k] += sums[k + half];
  return sum + sums[0];
}

template <typename T>
void multiply(const T* weight, const T* input, const T* bias, T* output, int64_t rows, int64_t columns, int threads) {
  std::vector<float> converted(columns);
  for (int64_t i = 0; i < columns; ++i) converted[i] = to_float(input[i]);
  const float* x = converted.data();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < rows; ++row) {
    const float sum = dot(weight + row * columns, x, columns);
    store(bias ? sum + to_float(bias[row]) : sum, output + row);
  }
}

}  // namespace

extern "C" {

void multiply_fp32(const float* w, const float* x, const float* b, float* y, int64_t rows, int64_t columns, int threads) {
  multiply(w, x, b, y, rows, columns, threads);
}

void multiply_bf16(const bf16* w, const bf16* x, const bf16* b, bf16* y, int64_t rows, int64_t columns, int threads) {
  multiply(w, x, b, y, rows, columns, threads);
}
}
