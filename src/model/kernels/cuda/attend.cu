// Keys and values of a pass into the pool, and attention straight out of it. Queries, keys, values and what comes out are of
// the type T that weights are multiplied in.
//
// One block per token and head. A position's key is read by a group of LANES lanes, 16 bytes each; every group takes
// positions of its own with a softmax of its own, and the groups are merged at the end. All sums are f32.
// Needs no header, so that it can be compiled where only a driver is; on a CPU it runs in tests/cuda/host.h.

typedef unsigned short bf16; // the upper half of an f32

#define WARPS 8
#define MOST_DIM 128
#define LOG2E 1.4426950408889634f
#define EVERYONE 0xffffffffu
#define MINUS_INFINITY __uint_as_float(0xff800000u)

__device__ __forceinline__ void round_to(float x, float* to) { *to = x; }

__device__ __forceinline__ void round_to(float x, bf16* to) {
    unsigned bits = __float_as_uint(x);
    *to = (bf16)(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ float widened(float x) { return x; }
__device__ __forceinline__ float widened(bf16 x) { return __uint_as_float((unsigned)x << 16); }

// 16 bytes of numbers, and as f32.
template <typename T> struct Pack;

template <> struct Pack<float> {
    static const int LEN = 4;
    float4 data;
    __device__ __forceinline__ void zero() { data.x = data.y = data.z = data.w = 0.0f; }
    __device__ __forceinline__ void load(const float* from) { data = *(const float4*)from; }
    __device__ __forceinline__ void store(float* to) const { *(float4*)to = data; }
    __device__ __forceinline__ void narrow(const float* from) {
        data.x = from[0], data.y = from[1], data.z = from[2], data.w = from[3];
    }
    __device__ __forceinline__ void widen(float* to) const {
        to[0] = data.x, to[1] = data.y, to[2] = data.z, to[3] = data.w;
    }
};

template <> struct Pack<bf16> {
    static const int LEN = 8;
    uint4 data;
    __device__ __forceinline__ void zero() { data.x = data.y = data.z = data.w = 0; }
    __device__ __forceinline__ void load(const bf16* from) { data = *(const uint4*)from; }
    __device__ __forceinline__ void store(bf16* to) const { *(uint4*)to = data; }
    __device__ __forceinline__ void narrow(const float* from) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bf16 low, high;
            round_to(from[2 * i], &low), round_to(from[2 * i + 1], &high);
            words[i] = low | (unsigned)high << 16;
        }
        data.x = words[0], data.y = words[1], data.z = words[2], data.w = words[3];
    }
    __device__ __forceinline__ void widen(float* to) const {
        const unsigned words[4] = {data.x, data.y, data.z, data.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            to[2 * i] = __uint_as_float(words[i] << 16);
            to[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
    }
};

// Copies the keys and values of qkv [tokens, 3 * heads * dim] to where their tokens live. Grid: (.., tokens).
// Of `keys` and `values`, row r and head h begin at r * row_stride + h * head_stride; positions lie dim apart. A token
// that sees `seen` positions is the last of them.
template <typename T>
__device__ __forceinline__ void store_at(const T* qkv, T* keys, T* values, const unsigned* rows, const unsigned* seen,
                      long long row_stride, long long head_stride, int heads, int dim) {
    int at = blockIdx.x * blockDim.x + threadIdx.x, token = blockIdx.y, hidden = heads * dim;
    if (at >= hidden || seen[token] == 0) return;
    const T* from = qkv + (long long)token * 3 * hidden + at;
    long long to = rows[token] * row_stride + at / dim * head_stride + (seen[token] - 1ll) * dim + at % dim;
    keys[to] = from[hidden], values[to] = from[2 * hidden];
}

// Queries [tokens, query_stride, of which the first heads * dim count] against positions 0..seen of row `rows[token]`, into
// out [tokens, heads * dim]; zeros where nothing is seen. `bias` (or null) is added to the scores, [tokens, bias_stride].
// With `stores`, queries are a qkv whose keys and values are stored first, as store_at does it: no row may have two tokens then,
// for no block waits for another. Grid: (heads, tokens), 32 * WARPS threads.
template <typename T, int LANES>
__device__ __forceinline__ void attend_at(const T* queries, T* keys, T* values, const unsigned* rows, const unsigned* seen,
                       const float* bias, T* out, long long row_stride, long long head_stride, int position_stride,
                       int query_stride, int bias_stride, int heads, int dim, int stores) {
    const int LEN = Pack<T>::LEN, GROUPS = 32 / LANES, AHEAD = 4, RUN = GROUPS * AHEAD;
    const float LOWEST = -1e30f;
    __shared__ float sums[WARPS][MOST_DIM], bests[WARPS], totals[WARPS];
    const int head = blockIdx.x, token = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int group = lane / LANES, part = lane % LANES * LEN, count = (int)seen[token];
    const bool used = part < dim;
    const long long start = rows[token] * row_stride + head * head_stride + part;
    queries += (long long)token * query_stride + head * dim;
    if (stores) {
        int at = threadIdx.x, hidden = heads * dim;
        if (at < dim && count > 0) {
            long long to = start - part + (count - 1ll) * position_stride + at;
            keys[to] = queries[hidden + at], values[to] = queries[2 * hidden + at];
        }
        __syncthreads();
    }
    if (bias) bias += (long long)token * bias_stride;

    // Scores are kept in powers of two.
    const float scale = LOG2E / sqrtf((float)dim);
    float query[LEN], sum[LEN], best = LOWEST, total = 0.0f;
    Pack<T> own;
    own.zero();
    if (used) own.load(queries + part);
    own.widen(query);
#pragma unroll
    for (int i = 0; i < LEN; i++) query[i] *= scale, sum[i] = 0.0f;
    for (int first = warp * RUN; first < count; first += WARPS * RUN) {
        Pack<T> key[AHEAD], value[AHEAD];
        float score[AHEAD], wide[LEN], top = best;
#pragma unroll
        for (int step = 0; step < AHEAD; step++) {
            int position = first + step * GROUPS + group;
            key[step].zero(), value[step].zero();
            if (used && position < count) {
                key[step].load(keys + start + (long long)position * position_stride);
                value[step].load(values + start + (long long)position * position_stride);
            }
        }
#pragma unroll
        for (int step = 0; step < AHEAD; step++) {
            int position = first + step * GROUPS + group;
            float dot = 0.0f;
            key[step].widen(wide);
#pragma unroll
            for (int i = 0; i < LEN; i++) dot += query[i] * wide[i];
#pragma unroll
            for (int far = LANES / 2; far > 0; far /= 2) dot += __shfl_xor_sync(EVERYONE, dot, far);
            if (bias && position < count) dot += bias[position] * LOG2E;
            score[step] = position < count ? dot : MINUS_INFINITY;
            top = fmaxf(top, score[step]);
        }
        float shrink = exp2f(best - top);
        best = top, total *= shrink;
#pragma unroll
        for (int i = 0; i < LEN; i++) sum[i] *= shrink;
#pragma unroll
        for (int step = 0; step < AHEAD; step++) {
            float weight = exp2f(score[step] - top);
            total += weight;
            value[step].widen(wide);
#pragma unroll
            for (int i = 0; i < LEN; i++) sum[i] += weight * wide[i];
        }
    }
#pragma unroll
    for (int far = LANES; far < 32; far *= 2) {
        float other = __shfl_xor_sync(EVERYONE, best, far), top = fmaxf(best, other);
        float mine = exp2f(best - top), theirs = exp2f(other - top);
        best = top, total = total * mine + __shfl_xor_sync(EVERYONE, total, far) * theirs;
#pragma unroll
        for (int i = 0; i < LEN; i++) sum[i] = sum[i] * mine + __shfl_xor_sync(EVERYONE, sum[i], far) * theirs;
    }
    if (group == 0 && used) {
#pragma unroll
        for (int i = 0; i < LEN; i++) sums[warp][part + i] = sum[i];
    }
    if (lane == 0) bests[warp] = best, totals[warp] = total;
    __syncthreads();
    if ((int)threadIdx.x < dim) {
        float top = LOWEST, all = 0.0f, result = 0.0f;
        for (int other = 0; other < WARPS; other++) top = fmaxf(top, bests[other]);
        for (int other = 0; other < WARPS; other++) {
            float weight = exp2f(bests[other] - top);
            all += totals[other] * weight;
            result += sums[other][threadIdx.x] * weight;
        }
        // Not `all > 0`: what is not a number must stay one.
        round_to(all == 0.0f ? 0.0f : result / all, out + (long long)(token * heads + head) * dim + threadIdx.x);
    }
}

#define STORE(NAME, T)                                                                                               \
    extern "C" __global__ void NAME(const T* qkv, T* keys, T* values, const unsigned* rows, const unsigned* seen,    \
                                    long long row_stride, long long head_stride, int heads, int dim) {               \
        store_at<T>(qkv, keys, values, rows, seen, row_stride, head_stride, heads, dim);                             \
    }
#define ATTEND(NAME, T, LANES)                                                                                       \
    extern "C" __global__ void __launch_bounds__(32 * WARPS, 3)                                                      \
        NAME(const T* queries, T* keys, T* values, const unsigned* rows, const unsigned* seen, const float* bias,    \
             T* out, long long row_stride, long long head_stride, int position_stride, int query_stride,             \
             int bias_stride, int heads, int dim, int stores) {                                                      \
        attend_at<T, LANES>(queries, keys, values, rows, seen, bias, out, row_stride, head_stride, position_stride,  \
                            query_stride, bias_stride, heads, dim, stores);                                          \
    }
#ifdef POOL // Only what a model needs: its type and lanes are known when this is compiled beside it.
STORE(store, POOL)
ATTEND(attend, POOL, POOL_LANES)
#else
STORE(store_f32, float)
STORE(store_bf16, bf16)
ATTEND(attend_f32_4, float, 4)
ATTEND(attend_f32_8, float, 8)
ATTEND(attend_f32_16, float, 16)
ATTEND(attend_f32_32, float, 32)
ATTEND(attend_bf16_2, bf16, 2)
ATTEND(attend_bf16_4, bf16, 4)
ATTEND(attend_bf16_8, bf16, 8)
ATTEND(attend_bf16_16, bf16, 16)
#endif
