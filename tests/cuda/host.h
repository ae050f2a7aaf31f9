// What the kernels use of CUDA, on a CPU: a block's threads are contexts on stacks of their own, which give way to one
// another at barriers and shuffles only. The order in which they are continued can be chosen: a result that depends on it
// lacks a barrier. A barrier that not all threads reach ends the program.
#pragma once
#undef _FORTIFY_SOURCE
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {
enum Order { FORWARD, BACKWARD, SHUFFLED };

struct Thread {
    ucontext_t start;
    jmp_buf at;
    std::unique_ptr<char[]> stack{new char[SIZE]};
    bool begun = false, done;
    static const int SIZE = 64 << 10;
};
struct Meeting { // of a warp or of the block
    unsigned members, arrived = 0, round = 0;
};
struct Warp : Meeting {
    unsigned long long values[2][32];
};

static std::vector<Thread> threads;
static std::vector<Warp> warps;
static Meeting block;
static int votes[2];
static jmp_buf scheduler;
static std::function<void()> kernel;
static unsigned long long steps; // changes whenever a meeting ends or a thread does
static unsigned lots = 1;

static void give_way() {
    if (!_setjmp(threads[threadIdx.x].at)) _longjmp(scheduler, 1);
}
// Waits until all members have come; which of them they were, modulo two.
static unsigned meet(Meeting& meeting) {
    unsigned round = meeting.round;
    if (++meeting.arrived == meeting.members) {
        meeting.arrived = 0, meeting.round++, steps++;
    } else {
        while (meeting.round == round) give_way();
    }
    return round & 1;
}
// A context serves one block after the other: making one takes long.
static void main_of_thread() {
    for (;;) {
        kernel();
        threads[threadIdx.x].done = true, steps++;
        give_way();
    }
}
static void resume(unsigned index) {
    Thread& thread = threads[index];
    threadIdx.x = index;
    if (_setjmp(scheduler)) return;
    if (thread.begun) _longjmp(thread.at, 1);
    thread.begun = true;
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = thread.stack.get(), thread.start.uc_stack.ss_size = Thread::SIZE;
    makecontext(&thread.start, main_of_thread, 0);
    setcontext(&thread.start);
}
static void run_block(unsigned count, Order order) {
    threads.resize(std::max<size_t>(threads.size(), count));
    warps.assign((count + 31) / 32, Warp());
    for (unsigned i = 0; i < warps.size(); i++) warps[i].members = std::min(32u, count - 32 * i);
    block = Meeting{count};
    std::vector<unsigned> turn(count);
    for (unsigned i = 0; i < count; i++) {
        turn[i] = order == BACKWARD ? count - 1 - i : i;
        threads[i].done = false;
    }
    for (unsigned left = count; left > 0;) {
        if (order == SHUFFLED) {
            for (unsigned i = count - 1; i > 0; i--) {
                lots = lots * 1664525 + 1013904223;
                std::swap(turn[i], turn[(lots >> 8) % (i + 1)]);
            }
        }
        unsigned long long before = steps;
        left = 0;
        for (unsigned index : turn) {
            if (!threads[index].done) resume(index);
            left += !threads[index].done;
        }
        if (steps == before) {
            fprintf(stderr, "%u threads of block (%u, %u) wait for others that never come\n", left, blockIdx.x, blockIdx.y);
            exit(1);
        }
    }
}
static void launch(dim3 grid, unsigned count, Order order, std::function<void()> body) {
    kernel = body, gridDim = grid, blockDim.x = count;
    for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) run_block(count, order);
}
template <typename T> T exchange(T value, unsigned from) {
    Warp& warp = warps[threadIdx.x / 32];
    unsigned lane = threadIdx.x % 32, round = warp.round & 1;
    memcpy(&warp.values[round][lane], &value, sizeof value);
    meet(warp);
    if (from < warp.members) memcpy(&value, &warp.values[round][from], sizeof value);
    return value;
}
} // namespace host

inline void __syncthreads() { host::meet(host::block); }
inline int __syncthreads_or(int vote) {
    unsigned round = host::block.round & 1;
    if (host::block.arrived == 0) host::votes[round] = 0;
    host::votes[round] |= vote;
    host::meet(host::block);
    return host::votes[round];
}
template <typename T> T __shfl_xor_sync(unsigned, T value, int far) {
    return host::exchange(value, threadIdx.x % 32 ^ far);
}
template <typename T> T __shfl_up_sync(unsigned, T value, unsigned far) {
    unsigned lane = threadIdx.x % 32;
    return host::exchange(value, lane < far ? lane : lane - far);
}
template <typename T> T atomicAdd(T* to, T value) {
    T old = *to;
    *to = old + value;
    return old;
}
template <typename T> T atomicMax(T* to, T value) {
    T old = *to;
    *to = std::max(old, value);
    return old;
}
template <typename T> T atomicMin(T* to, T value) {
    T old = *to;
    *to = std::min(old, value);
    return old;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
using std::min;
