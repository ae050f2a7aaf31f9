// From logits to codes: what sampler.rs does, one block per voice and codebook. Only the codes leave the device.
//
// Guidance and temperature are rounded as on the CPU, so the same logits are kept. Sums for the draw are f64; a draw can
// differ from the CPU's only where the last bits of these sums decide. Stands behind attend.cu in one text.

#define THREADS 256
#define MOST_CARD 4096
#define NOBODY 0xffffffffu

// Unsigned numbers in the order of the floats, and back.
__device__ __forceinline__ unsigned ordered(float x) {
    unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float unordered(unsigned key) {
    return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// What the threads before this one hold together. `warps` is shared and may be used again after the next barrier.
template <typename V> __device__ V before(V value, V* warps, V* all) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    V sum = value;
#pragma unroll
    for (int far = 1; far < 32; far *= 2) {
        V other = __shfl_up_sync(EVERYONE, sum, far);
        if (lane >= far) sum += other;
    }
    if (lane == 31) warps[warp] = sum;
    V own = __shfl_up_sync(EVERYONE, sum, 1), start = 0;
    __syncthreads();
    *all = 0;
    for (int other = 0; other < THREADS / 32; other++) {
        if (other < warp) start += warps[other];
        *all += warps[other];
    }
    return lane == 0 ? start : start + own;
}

// The `wanted` largest of `values`: the last of them. Bytes are found from the highest to the lowest.
__device__ float last_of_largest(const float* values, int card, unsigned wanted) {
    __shared__ unsigned counts[256], warps[THREADS / 32], found, rest;
    unsigned prefix = 0, all;
    for (int shift = 24; shift >= 0; shift -= 8) {
        counts[threadIdx.x] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < card; i += THREADS) {
            unsigned key = ordered(values[i]);
            if (key >> shift >> 8 == prefix) atomicAdd(&counts[key >> shift & 255], 1u);
        }
        __syncthreads();
        unsigned byte = 255 - threadIdx.x, count = counts[byte], above = before(count, warps, &all);
        if (above < wanted && wanted <= above + count) found = byte, rest = wanted - above;
        __syncthreads();
        prefix = prefix << 8 | found, wanted = rest;
    }
    return unordered(prefix);
}

// logits [rows, books, card]. A voice is six words: the row with its text or its only one, the null row or NOBODY, guidance,
// temperature (0 takes the largest logit), top-k (0 keeps all), nothing. targets [voices, books] are uniform numbers. A
// code is NOBODY where numbers are none. Grid: (books, voices), THREADS threads.
extern "C" __global__ void __launch_bounds__(THREADS)
    sample(const float* logits, const unsigned* voices, const double* targets, unsigned* codes, int card) {
    __shared__ float scaled[MOST_CARD];
    __shared__ double warps[2][THREADS / 32];
    __shared__ unsigned long long best;
    __shared__ int first, last;
    const int books = gridDim.x, book = blockIdx.x, thread = threadIdx.x;
    const unsigned* voice = voices + 6 * blockIdx.y;
    const float* cond = logits + ((long long)voice[0] * books + book) * card;
    const float* null = voice[1] == NOBODY ? 0 : logits + ((long long)voice[1] * books + book) * card;
    const float guidance = __uint_as_float(voice[2]), temperature = __uint_as_float(voice[3]);
    const unsigned top_k = voice[4];
    unsigned* code = codes + blockIdx.y * books + book;
    const bool greedy = temperature <= 0.0f;
    if (thread == 0) best = 0, first = card, last = 0;
    __syncthreads();

    bool bad = false;
    unsigned long long own = 0;
    for (int i = thread; i < card; i += THREADS) {
        float value = cond[i];
        if (null) value = __fadd_rn(null[i], __fmul_rn(guidance, __fsub_rn(value, null[i])));
        bad |= value != value;
        value = greedy ? value : __fdiv_rn(value, temperature);
        scaled[i] = value;
        // The first of equal ones is the largest key; adding zero makes one of both zeros.
        unsigned long long key = (unsigned long long)ordered(value + 0.0f) << 32 | ~(unsigned)i;
        own = key > own ? key : own;
    }
#pragma unroll
    for (int far = 16; far > 0; far /= 2) {
        unsigned long long other = __shfl_xor_sync(EVERYONE, own, far);
        own = other > own ? other : own;
    }
    if (thread % 32 == 0) atomicMax(&best, own);
    if (__syncthreads_or(bad)) {
        if (thread == 0) *code = NOBODY;
        return;
    }
    if (greedy) {
        if (thread == 0) *code = ~(unsigned)best;
        return;
    }
    const float top = unordered((unsigned)(best >> 32));
    const float kept = top_k > 0 && top_k < (unsigned)card ? last_of_largest(scaled, card, top_k) : MINUS_INFINITY;

    // From here on every thread has neighbours of its own, so that sums run in the order of the codes.
    const int each = (card + THREADS - 1) / THREADS;
    const int begin = min(card, thread * each), end = min(card, begin + each);
    double sum = 0.0, total;
    for (int i = begin; i < end; i++) {
        if (!(scaled[i] < kept)) sum += exp((double)__fsub_rn(scaled[i], top));
    }
    before(sum, warps[0], &total);
    if (!(total - total == 0.0)) {
        if (thread == 0) *code = NOBODY;
        return;
    }
    sum = 0.0;
    for (int i = begin; i < end; i++) {
        float share = scaled[i] < kept ? 0.0f : (float)(exp((double)__fsub_rn(scaled[i], top)) / total);
        scaled[i] = share;
        sum += share;
    }
    const double target = targets[blockIdx.y * books + book];
    double reached = before(sum, warps[1], &total);
    for (int i = begin; i < end; i++) {
        if (scaled[i] > 0.0f) {
            reached += scaled[i];
            atomicMax(&last, i);
            if (reached > target) {
                atomicMin(&first, i);
                break;
            }
        }
    }
    __syncthreads();
    // Rounding may leave the sum just below the target: then the last code that can be drawn is.
    if (thread == 0) *code = first < card ? first : last;
}
