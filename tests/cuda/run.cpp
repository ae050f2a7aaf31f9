// Runs the kernels on the CPU: jobs come on the standard input, results go to the standard output. All words are 32 bits,
// little endian; a job begins with twelve of them. tests/cuda.rs writes the jobs.
#include "host.h"

#include "attend.cu"
#include "layer.cu"
#include "sample.cu"

template <typename T> static std::vector<T> read(size_t count) {
    std::vector<T> data(count);
    if (fread(data.data(), sizeof(T), count, stdin) != count) {
        fprintf(stderr, "the input ends early\n");
        exit(1);
    }
    return data;
}
template <typename T> static void write(const std::vector<T>& data) { fwrite(data.data(), sizeof(T), data.size(), stdout); }

// Numbers of a kernel's type, which come and go as f32; aligned to 16 bytes, as on the device.
template <typename T> struct Numbers {
    size_t count;
    std::vector<float4> memory;
    explicit Numbers(size_t count) : count(count), memory(count * sizeof(T) / 16 + 1) {}
    T* data() { return (T*)memory.data(); }
    static Numbers input(size_t count) {
        Numbers numbers(count);
        auto given = read<float>(count);
        for (size_t i = 0; i < count; i++) round_to(given[i], numbers.data() + i);
        return numbers;
    }
    void output() {
        std::vector<float> wide(count);
        for (size_t i = 0; i < count; i++) wide[i] = widened(data()[i]);
        write(wide);
    }
};

struct Attention {
    host::Order order;
    int lanes, heads, dim, rows, window, bias_stride, passes;
};

// Passes over one pool; in each, keys and values are stored and then attended to, by one kernel or by two. Of every pass: the
// number of tokens, whether attention stores, qkv, rows, seen, bias.
template <typename T, typename Store, typename Attend> static void attention(const Attention& job, Store store, Attend attend) {
    const size_t hidden = job.heads * job.dim, row = hidden * (job.window + 1);
    const long long head = (long long)job.dim * (job.window + 1);
    Numbers<T> keys(job.rows * row), values(job.rows * row);
    for (int pass = 0; pass < job.passes; pass++) {
        const unsigned tokens = read<unsigned>(1)[0], stores = read<unsigned>(1)[0];
        auto qkv = Numbers<T>::input(tokens * 3 * hidden);
        auto rows = read<unsigned>(tokens), seen = read<unsigned>(tokens);
        auto bias = read<float>(tokens * job.bias_stride);
        Numbers<T> out(tokens * hidden);
        if (!stores) {
            host::launch({(unsigned)(hidden + 255) / 256, tokens}, 256, job.order, [&] {
                store(qkv.data(), keys.data(), values.data(), rows.data(), seen.data(), row, head, job.heads, job.dim);
            });
        }
        host::launch({(unsigned)job.heads, tokens}, 32 * WARPS, job.order, [&] {
            attend(qkv.data(), keys.data(), values.data(), rows.data(), seen.data(), job.bias_stride ? bias.data() : nullptr,
                   out.data(), row, head, job.dim, 3 * hidden, job.bias_stride, job.heads, job.dim, stores);
        });
        out.output();
    }
}

static void attention(const Attention& job, bool narrow) {
    switch (job.lanes + (narrow ? 100 : 0)) {
    case 4: return attention<float>(job, store_f32, attend_f32_4);
    case 8: return attention<float>(job, store_f32, attend_f32_8);
    case 16: return attention<float>(job, store_f32, attend_f32_16);
    case 32: return attention<float>(job, store_f32, attend_f32_32);
    case 102: return attention<bf16>(job, store_bf16, attend_bf16_2);
    case 104: return attention<bf16>(job, store_bf16, attend_bf16_4);
    case 108: return attention<bf16>(job, store_bf16, attend_bf16_8);
    case 116: return attention<bf16>(job, store_bf16, attend_bf16_16);
    }
    fprintf(stderr, "no kernel has %d lanes\n", job.lanes);
    exit(1);
}

// A residual stream, a product or none, weight and bias; the stream behind it and its norm.
template <typename T, typename Kernel>
static void norm(host::Order order, unsigned rows, unsigned width, bool adds, Kernel kernel) {
    auto residual = read<float>((size_t)rows * width);
    auto product = Numbers<T>::input(adds ? (size_t)rows * width : 0);
    auto weight = read<float>(width), bias = read<float>(width);
    Numbers<T> out((size_t)rows * width);
    host::launch({rows}, 32 * WARPS, order, [&] {
        kernel(residual.data(), adds ? product.data() : nullptr, weight.data(), bias.data(), out.data(), width, 1e-5f);
    });
    write(residual);
    out.output();
}

static void norm(host::Order order, unsigned rows, unsigned width, bool adds, bool narrow, int each) {
    switch (each + (narrow ? 100 : 0)) {
    case 1: return norm<float>(order, rows, width, adds, add_norm_f32_1);
    case 4: return norm<float>(order, rows, width, adds, add_norm_f32_4);
    case 6: return norm<float>(order, rows, width, adds, add_norm_f32_6);
    case 16: return norm<float>(order, rows, width, adds, add_norm_f32_16);
    case 101: return norm<bf16>(order, rows, width, adds, add_norm_bf16_1);
    case 104: return norm<bf16>(order, rows, width, adds, add_norm_bf16_4);
    case 108: return norm<bf16>(order, rows, width, adds, add_norm_bf16_8);
    case 116: return norm<bf16>(order, rows, width, adds, add_norm_bf16_16);
    }
    fprintf(stderr, "no kernel holds %d numbers in a thread\n", each);
    exit(1);
}

template <typename T, typename Kernel> static void bend(host::Order order, unsigned count, Kernel kernel) {
    auto x = Numbers<T>::input(count);
    const unsigned each = 32 * WARPS * Pack<T>::LEN;
    host::launch({(count + each - 1) / each}, 32 * WARPS, order, [&] { kernel(x.data(), count); });
    x.output();
}

// Voices, of which each has the words of the kernel; logits, voices and targets.
static void sampling(host::Order order, unsigned rows, unsigned voices, unsigned books, unsigned card) {
    auto logits = read<float>((size_t)rows * books * card);
    auto words = read<unsigned>(6 * voices);
    auto targets = read<double>(voices * books);
    std::vector<unsigned> codes(voices * books);
    host::launch({books, voices}, THREADS, order,
                 [&] { sample(logits.data(), words.data(), targets.data(), codes.data(), card); });
    write(codes);
}

int main() {
    unsigned word;
    while (fread(&word, 4, 1, stdin) == 1) {
        auto job = read<unsigned>(11);
        auto order = (host::Order)job[0];
        auto number = [&](int index) { return (int)job[index]; };
        if (word == 0) {
            attention({order, number(2), number(3), number(4), number(5), number(6), number(7), number(8)}, job[1]);
        } else if (word == 1) {
            sampling(order, job[1], job[2], job[3], job[4]);
        } else if (word == 2) {
            norm(order, job[2], job[3], job[5], job[1], number(4));
        } else {
            job[1] ? bend<bf16>(order, job[2], gelu_bf16) : bend<float>(order, job[2], gelu_f32);
        }
    }
}
