// Enough of CUDA C++ to run one kernel on a CPU: the threads of a block are fibers of one thread, which change
// only where threads wait for each other, in an order that can be chosen: a result that depends on it lacks a
// barrier. Blocks run one after another; shared memory begins as not-a-number.

#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

using std::max;
using std::min;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct dim3 {
    int x = 0, y = 0, z = 0;
};

static dim3 threadIdx, blockIdx, blockDim, gridDim;
alignas(16) float memory[57 * 1024];  // the kernel's dynamic shared memory

inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    const uint64_t bytes = low | static_cast<uint64_t>(high) << 32;
    unsigned result = 0;
    for (int k = 0; k < 4; ++k) {
        result |= static_cast<unsigned>(bytes >> (selector >> 4 * k & 7) * 8 & 255) << 8 * k;
    }
    return result;
}

namespace fibers {

constexpr size_t STACK = 64 * 1024;

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun = false, done = false;
    std::vector<char> stack = std::vector<char>(STACK);
};

static std::vector<Fiber> all;
static ucontext_t outside;
static std::function<void()> body;
static int running;
static int stride = 1;  // from a fiber to the next; odd, as fibers are a power of two

inline void go_to(int number) {
    running = threadIdx.x = number;
    if (all[number].begun) _longjmp(all[number].at, 1);
    all[number].begun = true;
    setcontext(&all[number].start);
}

// On to the next of `count` fibers from `first` on.
__attribute__((noinline)) inline void leave(int first, int count) {
    if (_setjmp(all[running].at)) return;
    int next = running;
    do {
        next = first + (next - first + count + stride % count) % count;
    } while (all[next].done);
    go_to(next);
}

inline void enter() {
    body();
    all[running].done = true;
    const int count = static_cast<int>(all.size());
    for (int k = 0, next = running; k < count; ++k) {
        next = (next + count + stride % count) % count;
        if (!all[next].done) go_to(next);
    }
    setcontext(&outside);
}

struct Barrier {
    int arrived = 0;
    unsigned turn = 0;
    void wait(int first, int count) {
        const unsigned mine = turn;
        if (++arrived == count) {
            arrived = 0;
            ++turn;
        }
        while (turn == mine) leave(first, count);
    }
};

static Barrier of_block, of_warp[32];
static float exchanged[1024];

inline void run_block(int threads) {
    all.resize(threads);
    for (auto& fiber : all) {
        fiber.begun = fiber.done = false;
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.data();
        fiber.start.uc_stack.ss_size = fiber.stack.size();
        fiber.start.uc_link = nullptr;
        makecontext(&fiber.start, enter, 0);
    }
    volatile bool back = false;
    getcontext(&outside);
    if (back) return;
    back = true;
    go_to(0);
}

inline void run_grid(int blocks, int threads, std::function<void()> kernel) {
    body = kernel;
    blockDim.x = threads;
    gridDim.x = blocks;
    for (int block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        std::fill(std::begin(memory), std::end(memory), std::nanf(""));
        run_block(threads);
    }
}

}  // namespace fibers

inline void __syncthreads() { fibers::of_block.wait(0, blockDim.x); }

inline float __shfl_xor_sync(unsigned, float value, int bit) {
    const int lane = threadIdx.x, first = lane / 32 * 32;
    fibers::exchanged[lane] = value;
    fibers::of_warp[lane / 32].wait(first, 32);
    const float other = fibers::exchanged[lane ^ bit];
    fibers::of_warp[lane / 32].wait(first, 32);
    return other;
}
