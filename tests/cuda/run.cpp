// Runs the kernels on the CPU: jobs come on the standard input, results go to the standard output. All words are 32 bits,
// little endian; a job begins with twelve of them. tests/cuda.rs writes the jobs.
#include "host.h"

#include "attend.cu"
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

struct Attention {
    host::Order order;
    int lanes, heads, dim, rows, window, bias_stride, passes;
};

// Passes over one pool; in each, keys and values are stored and then attended to. Of every pass: the number of tokens,
// qkv, rows, seen, bias.
template <typename T, typename Store, typename Attend> static void attention(const Attention& job, Store store, Attend attend) {
    const size_t hidden = job.heads * job.dim, row = hidden * (job.window + 1);
    const long long head = (long long)job.dim * (job.window + 1);
    // 16 bytes alignment, as on the device.
    std::vector<float4> keys(job.rows * row * sizeof(T) / 16 + 1), values(keys.size());
    T *k = (T*)keys.data(), *v = (T*)values.data();
    for (int pass = 0; pass < job.passes; pass++) {
        const unsigned tokens = read<unsigned>(1)[0];
        auto qkv = read<float>(tokens * 3 * hidden);
        auto rows = read<unsigned>(tokens), seen = read<unsigned>(tokens);
        auto bias = read<float>(tokens * job.bias_stride);
        std::vector<float> out(tokens * hidden);
        host::launch({(unsigned)(hidden + 255) / 256, tokens}, 256, job.order, [&] {
            store(qkv.data(), k, v, rows.data(), seen.data(), row, head, job.heads, job.dim);
        });
        host::launch({(unsigned)job.heads, tokens}, 32 * WARPS, job.order, [&] {
            attend(qkv.data(), k, v, rows.data(), seen.data(), job.bias_stride ? bias.data() : nullptr, out.data(), row, head,
                   job.dim, 3 * hidden, job.bias_stride, job.heads, job.dim);
        });
        write(out);
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
        } else {
            sampling(order, job[1], job[2], job[3], job[4]);
        }
    }
}
