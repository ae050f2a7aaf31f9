// What lies between a layer's products: the residual stream's sum and norm, and GELU. The stream is f32, what is multiplied and
// what a product gives are of the type T of the weights, all sums are f32. Stands behind attend.cu in one text.

// The sum of a value of all threads. `warps` is shared and used once.
__device__ __forceinline__ float sum_of_block(float value, float* warps) {
#pragma unroll
    for (int far = 16; far > 0; far /= 2) value += __shfl_xor_sync(EVERYONE, value, far);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; warp++) sum += warps[warp];
    return sum;
}

// Adds product [rows, width] (or nothing, if it is null) to residual [rows, width]; out [rows, width] is the sum's layer norm.
// A row is held by its threads, EACH numbers in each: width is 32 * WARPS * EACH at most. Grid: (rows), 32 * WARPS threads.
template <typename T, int EACH>
__device__ __forceinline__ void add_norm_at(float* residual, const T* product, const float* weight, const float* bias, T* out,
                                            int width, float eps) {
    __shared__ float sums[WARPS], squares[WARPS];
    const long long row = (long long)blockIdx.x * width;
    float own[EACH], sum = 0.0f, square = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int at = i * 32 * WARPS + threadIdx.x;
        own[i] = 0.0f;
        if (at < width) {
            own[i] = residual[row + at];
            if (product) residual[row + at] = own[i] += widened(product[row + at]);
        }
        sum += own[i];
    }
    const float mean = sum_of_block(sum, sums) / width;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float away = own[i] - mean;
        if (i * 32 * WARPS + (int)threadIdx.x < width) square += away * away;
    }
    const float scale = 1.0f / sqrtf(sum_of_block(square, squares) / width + eps);
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int at = i * 32 * WARPS + threadIdx.x;
        if (at < width) round_to((own[i] - mean) * scale * weight[at] + bias[at], out + row + at);
    }
}

// The complement keeps what is left of large negative numbers.
__device__ __forceinline__ float gelu_of(float x) { return 0.5f * x * erfcf(x * -0.70710678f); }

// The exact GELU of `count` numbers, in place, 16 bytes per thread. Grid: (.., 1).
template <typename T> __device__ __forceinline__ void gelu_at(T* x, long long count) {
    const int LEN = Pack<T>::LEN;
    long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * LEN;
    if (at + LEN <= count) {
        Pack<T> pack;
        float wide[LEN];
        pack.load(x + at);
        pack.widen(wide);
#pragma unroll
        for (int i = 0; i < LEN; i++) wide[i] = gelu_of(wide[i]);
        pack.narrow(wide);
        pack.store(x + at);
    } else {
        for (; at < count; at++) round_to(gelu_of(widened(x[at])), x + at);
    }
}

#define ADD_NORM(NAME, T, EACH)                                                                                      \
    extern "C" __global__ void __launch_bounds__(32 * WARPS)                                                         \
        NAME(float* residual, const T* product, const float* weight, const float* bias, T* out, int width,           \
             float eps) {                                                                                            \
        add_norm_at<T, EACH>(residual, product, weight, bias, out, width, eps);                                      \
    }
#define GELU(NAME, T)                                                                                                \
    extern "C" __global__ void __launch_bounds__(32 * WARPS) NAME(T* x, long long count) { gelu_at<T>(x, count); }
#ifdef POOL
ADD_NORM(add_norm, POOL, NORM_EACH)
GELU(gelu, POOL)
#else
ADD_NORM(add_norm_f32_1, float, 1)
ADD_NORM(add_norm_f32_4, float, 4)
ADD_NORM(add_norm_f32_6, float, 6)
ADD_NORM(add_norm_f32_16, float, 16)
ADD_NORM(add_norm_bf16_1, bf16, 1)
ADD_NORM(add_norm_bf16_4, bf16, 4)
ADD_NORM(add_norm_bf16_8, bf16, 8)
ADD_NORM(add_norm_bf16_16, bf16, 16)
GELU(gelu_f32, float)
GELU(gelu_bf16, bf16)
#endif
