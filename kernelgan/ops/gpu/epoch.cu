// One epoch of training for a population of small networks: one network a thread block, every step in one
// launch. float32 multiply-adds throughout (no TF32).
//
// A network: image (SIZE, SIZE, 3) uint8; convolution KERNEL x KERNEL, valid, 3 -> FILTERS1; 2 x 2
// max-pooling; bias; ReLU; the same again, FILTERS1 -> FILTERS2; features in CHW order; dense -> OUTPUTS.
//
// Compiled by NVRTC with the sizes as macros, so no header is included. What decides the layout:
//
// - Weights, gradients, images (as bytes, GROUP at a time) and activations stay in shared memory, small
//   enough that two blocks share a multiprocessor: while one waits at a barrier, the other computes. Adam's
//   moments are read and written once a step, 88 KB for a batch of 128 images whose activations would be
//   23 MB, and are left in global memory, where the L2 cache holds them.
// - Shared memory gives 32 words a clock and the arithmetic takes 128 multiply-adds, so every loop keeps a
//   tile of sums in registers that uses each word it reads at least five times. (The gradient of the second
//   kernel is the exception: see there.)
// - A byte becomes a float by one byte permutation and one multiply-add (see `pixel`), not by the slow
//   conversion unit.
// - No atomics: every sum has one owner and a fixed order, so that results are the same to the bit in every
//   run, whatever the other blocks do.
//
// Clocks of a multiprocessor an image, for the reference's network, counted from the machine code for sm_90
// (instructions over four schedulers, and of them multiply-adds; words of shared memory over 32). An estimate:
//
//                      instructions   multiply-adds   shared memory, at most
//     convolve1                3490            88 %             1650
//     convolve2                2150            91 %             1220
//     answer, dense             200
//     kernel_gradient2         1160            41 %             2025
//     map_slopes               2590            74 %             1500
//     kernel_gradient1         3750            83 %              720
//     the rest                  100
//     all                     13440
//
// With the one phase that shared memory bounds, 14,300; 33 TFLOP/s of the 2.856 MFLOP that an image takes are
// 19,400 clocks on 132 multiprocessors at 1.7 GHz.

#ifndef GROUP
#define GROUP 8  // images in shared memory at a time; even
#endif
#ifndef THREADS
#define THREADS 256
#endif
#ifndef BLOCKS
#define BLOCKS 2  // blocks that should share a multiprocessor
#endif

constexpr int CHANNELS = 3;
constexpr int TAPS = KERNEL * KERNEL;
constexpr int POOLED1 = (SIZE - KERNEL + 1) / 2;
constexpr int POOLED2 = (POOLED1 - KERNEL + 1) / 2;
constexpr int WINDOWS2 = POOLED2 * POOLED2;
constexpr int FEATURES = FILTERS2 * WINDOWS2;
constexpr int WARPS = THREADS / 32;

__device__ constexpr int rounded_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// The smallest pitch of at least `least` words with `pitch % 32 == rest`, for lanes that differ in the image
// to read other banks than lanes that differ in the column or the window.
__device__ constexpr int pitched(int least, int rest) { return least + (rest + 32 - least % 32) % 32; }

// Images: words of four bytes, one plane a channel.
constexpr int WORDS = SIZE / 4;
constexpr int IMAGE = CHANNELS * SIZE * WORDS;

// The first layer's maps, float (GROUP, FILTERS1, POOLED1, ROW), an image PITCH apart; two windows side by side
// are one item of work, so a row is even.
constexpr int PAIRS = (POOLED1 + 1) / 2;
constexpr int ROW = 2 * PAIRS;
constexpr int PLANE = POOLED1 * ROW;
constexpr int PITCH = pitched(FILTERS1 * PLANE, 2 * POOLED2 % 32);
constexpr int PITCH2 = pitched(FEATURES, WINDOWS2 % 32);  // between images' features

constexpr int WIDTH1 = rounded_up(FILTERS1, 4);  // between taps of the first kernel, for float4
constexpr int TILE2 = 8;                         // filters of the second kernel that an item computes
constexpr int WIDTH2 = rounded_up(FILTERS2, TILE2);
constexpr int SHARE1 = 3;  // filters of the first layer whose gradient a warp has
constexpr int SHARES1 = (FILTERS1 + SHARE1 - 1) / SHARE1;
constexpr int SHARE2 = 2;  // maps whose slopes an item has: few, so that there is an item for nearly every thread
constexpr int SHARES2 = (FILTERS1 + SHARE2 - 1) / SHARE2;

// Where each parameter begins, flat as the caller has them: HWIO kernels, then biases, layer by layer.
constexpr int BIAS1 = TAPS * CHANNELS * FILTERS1;
constexpr int KERNEL2 = BIAS1 + FILTERS1;
constexpr int BIAS2 = KERNEL2 + TAPS * FILTERS1 * FILTERS2;
constexpr int DENSE = BIAS2 + FILTERS2;
constexpr int BIAS3 = DENSE + FEATURES * OUTPUTS;
constexpr int PARAMETERS = BIAS3 + OUTPUTS;

// The same in shared memory: kernels as (input channel, height, width, filter), filters padded.
constexpr int W1 = 0;
constexpr int W2 = W1 + CHANNELS * TAPS * WIDTH1;
constexpr int W3 = W2 + FILTERS1 * TAPS * WIDTH2;
constexpr int B1 = W3 + FEATURES * OUTPUTS;
constexpr int B2 = B1 + FILTERS1;
constexpr int B3 = B2 + FILTERS2;
constexpr int WEIGHTS = rounded_up(B3 + OUTPUTS, 4);

// Shared memory, in words. Reads of a row's end may go a few words over it: hence the spare ones.
constexpr int AT_GRADIENT = WEIGHTS;
constexpr int AT_MAPS = AT_GRADIENT + rounded_up(PARAMETERS, 4);
constexpr int AT_FEATURES = AT_MAPS + rounded_up(GROUP * PITCH + 8, 4);
constexpr int AT_SLOPES = AT_FEATURES + rounded_up(GROUP * PITCH2 > BIAS1 ? GROUP * PITCH2 : BIAS1, 4);
constexpr int AT_LOSSES = AT_SLOPES + GROUP * OUTPUTS;
constexpr int AT_TOTAL = AT_LOSSES + GROUP;
constexpr int AT_IMAGES = rounded_up(AT_TOTAL + 2, 4);
constexpr int AT_CODES1 = AT_IMAGES + rounded_up(GROUP * IMAGE + 4, 4);
constexpr int CODES1 = GROUP * FILTERS1 * POOLED1 * PAIRS;  // bytes
constexpr int AT_CODES2 = AT_CODES1 + rounded_up(CODES1, 16) / 4;
constexpr int CODES2 = GROUP / 2 * FEATURES;  // bytes
constexpr int SHARED_WORDS = AT_CODES2 + rounded_up(CODES2, 16) / 4;

static_assert(SIZE % 4 == 0, "rows of an image are whole words");
static_assert(GROUP % 2 == 0 && THREADS % 32 == 0, "");
static_assert(POOLED2 >= 1 && KERNEL - 1 <= 2 * POOLED2, "");
static_assert(FILTERS1 <= 8 && FILTERS1 * FILTERS2 <= THREADS, "");

// A code says which place of a pooling window its maximum came from: bit 2 * row + column of four, none where
// ReLU cut it. A byte holds two: in the first layer of two windows side by side, in the second of one window
// of two images, the second's in the upper half.
__device__ __forceinline__ unsigned code_of(const float place[4], float bias, float& value) {
    float best = place[0];
    unsigned code = 1;
#pragma unroll
    for (int k = 1; k < 4; ++k) {
        if (place[k] > best) {
            best = place[k];
            code = 1u << k;
        }
    }
    best += bias;
    if (best <= 0.0f) {  // written so that what is not a number stays so
        best = 0.0f;
        code = 0;
    }
    value = best;
    return code;
}

// Byte `k` of a word as x / 127.5 - 1, rounded once: 2^23 + x is a float whose last byte is x, and
// 2^23 * SCALE + 1 is one too.
__device__ __forceinline__ float pixel(unsigned word, int k) {
    constexpr float SCALE = 2.0f / 255.0f;
    constexpr float SHIFT = -(8388608.0f * SCALE) - 1.0f;
    return fmaf(__uint_as_float(__byte_perm(word, 0x4B000000u, 0x7440u | k)), SCALE, SHIFT);
}

// A row of pixels from a word on: as many as two pooling windows side by side see.
constexpr int SEEN = KERNEL + 3;

__device__ __forceinline__ void read_pixels(const unsigned* row, float values[SEEN]) {
#pragma unroll
    for (int word = 0; word < (SEEN + 3) / 4; ++word) {
        const unsigned bytes = row[word];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (4 * word + k < SEEN) values[4 * word + k] = pixel(bytes, k);
        }
    }
}

template <int COUNT>
__device__ __forceinline__ void read_vector(const float* from, float values[COUNT]) {
#pragma unroll
    for (int k = 0; k + 4 <= COUNT; k += 4) {
        const float4 four = *reinterpret_cast<const float4*>(from + k);
        values[k] = four.x, values[k + 1] = four.y, values[k + 2] = four.z, values[k + 3] = four.w;
    }
    constexpr int LEFT = COUNT / 4 * 4;
    if (COUNT - LEFT >= 2) {
        const float2 two = *reinterpret_cast<const float2*>(from + LEFT);
        values[LEFT] = two.x, values[LEFT + 1] = two.y;
    }
    if (COUNT % 2) values[COUNT - 1] = from[COUNT - 1];
}

// Sums over a warp by halves: lane bits choose which half of the values to go on with, so that COUNT values
// take about COUNT exchanges and not five times as many.
template <int COUNT, int BIT>
struct Halves {
    static constexpr int HALF = (COUNT + 1) / 2;
    __device__ __forceinline__ static void add(float* values, int lane) {
        const bool upper = lane & BIT;
#pragma unroll
        for (int k = 0; k < HALF; ++k) {
            const float low = values[k];
            const float high = k + HALF < COUNT ? values[k + HALF] : 0.0f;
            values[k] = (upper ? high : low) + __shfl_xor_sync(0xFFFFFFFFu, upper ? low : high, BIT);
        }
        Halves<HALF, BIT / 2>::add(values, lane);
    }
    // The number of the sum that a lane has at place k, or -1.
    __device__ __forceinline__ static int number(int k, int lane) {
        const int below = Halves<HALF, BIT / 2>::number(k, lane);
        if (below < 0) return -1;
        const int here = below + (lane & BIT ? HALF : 0);
        return here < COUNT ? here : -1;
    }
    static constexpr int LEFT = Halves<HALF, BIT / 2>::LEFT;
};
template <int COUNT>
struct Halves<COUNT, 0> {
    static constexpr int LEFT = COUNT;
    __device__ __forceinline__ static void add(float*, int) {}
    __device__ __forceinline__ static int number(int k, int) { return k < COUNT ? k : -1; }
};

// The same sum in every lane.
__device__ __forceinline__ float sum_of_warp(float value) {
#pragma unroll
    for (int bit = 16; bit > 0; bit /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, bit);
    return value;
}

// Where a flat parameter lies among the weights in shared memory.
__device__ int place_of(int number) {
    if (number < BIAS1) {
        const int filter = number % FILTERS1, channel = number / FILTERS1 % CHANNELS;
        return W1 + (channel * TAPS + number / (FILTERS1 * CHANNELS)) * WIDTH1 + filter;
    }
    if (number < KERNEL2) return B1 + number - BIAS1;
    if (number < BIAS2) {
        number -= KERNEL2;
        const int filter = number % FILTERS2, channel = number / FILTERS2 % FILTERS1;
        return W2 + (channel * TAPS + number / (FILTERS2 * FILTERS1)) * WIDTH2 + filter;
    }
    if (number < DENSE) return B2 + number - BIAS2;
    if (number < BIAS3) return W3 + number - DENSE;
    return B3 + number - BIAS3;
}

// Bytes of GROUP images, interleaved in global memory, to planes; zeros beyond the batch.
__device__ __forceinline__ void stage(
    int thread, const unsigned char* images, const int* index, int left, int count, unsigned* planes) {
    for (int item = thread; item < GROUP * SIZE * WORDS; item += THREADS) {
        const int word = item % (SIZE * WORDS), g = item / (SIZE * WORDS);
        unsigned a = 0, b = 0, c = 0;
        if (g < left) {
            const int number = min(max(index[g], 0), count - 1);
            const unsigned* from =
                reinterpret_cast<const unsigned*>(images + (long long)number * (4 * IMAGE)) + 3 * word;
            a = from[0], b = from[1], c = from[2];
        }
        unsigned* to = planes + g * IMAGE + word;
        to[0] = __byte_perm(__byte_perm(a, b, 0x0630), c, 0x5210);
        to[SIZE * WORDS] = __byte_perm(__byte_perm(a, b, 0x0741), c, 0x6210);
        to[2 * SIZE * WORDS] = __byte_perm(__byte_perm(a, b, 0x0052), c, 0x7410);
    }
}

// Images to the first maps and codes: items from `begin` to `end`, by `thread` of THREADS. An item is two pooling
// windows side by side, COUNT filters.
template <int COUNT>
__device__ __forceinline__ void convolve1_items(
    int thread, int begin, int end, const unsigned* planes, const float* weights, float* maps,
    unsigned char* codes) {
#pragma unroll 1
    for (int item = begin + thread; item < end; item += THREADS) {
        const int first = COUNT == FILTERS1 ? 0 : item % FILTERS1 * COUNT;
        const int window = COUNT == FILTERS1 ? item : item / FILTERS1;
        const int pair = window % PAIRS, py = window / PAIRS % POOLED1, g = window / (PAIRS * POOLED1);
        float sums[COUNT][2][4] = {};
        const float* w = weights + W1 + first;
#pragma unroll 1
        for (int channel = 0; channel < CHANNELS; ++channel) {
            const unsigned* row = planes + g * IMAGE + (channel * SIZE + 2 * py) * WORDS + pair;
            float above[SEEN], below[SEEN];
            read_pixels(row, above);
#pragma unroll 1
            for (int ky = 0; ky < KERNEL; ++ky) {
                row += WORDS;
                read_pixels(row, below);
#pragma unroll
                for (int kx = 0; kx < KERNEL; ++kx, w += WIDTH1) {
                    float tap[COUNT];
                    read_vector<COUNT>(w, tap);
#pragma unroll
                    for (int f = 0; f < COUNT; ++f) {
#pragma unroll
                        for (int column = 0; column < 4; ++column) {
                            sums[f][column / 2][column % 2] += above[column + kx] * tap[f];
                            sums[f][column / 2][2 + column % 2] += below[column + kx] * tap[f];
                        }
                    }
                }
#pragma unroll
                for (int k = 0; k < SEEN; ++k) above[k] = below[k];
            }
        }
#pragma unroll
        for (int f = 0; f < COUNT; ++f) {
            const int filter = first + f;
            const float bias = weights[B1 + filter];
            float2 value;
            const unsigned left = code_of(sums[f][0], bias, value.x);
            const unsigned right = code_of(sums[f][1], bias, value.y);
            *reinterpret_cast<float2*>(maps + g * PITCH + filter * PLANE + py * ROW + 2 * pair) = value;
            codes[((g * FILTERS1 + filter) * POOLED1 + py) * PAIRS + pair] = left | right << 4;
        }
    }
}

// All filters at once as long as every thread has an item; the few that are left, a filter at a time, so that
// the block does not wait for one warp.
__device__ __forceinline__ void convolve1(
    int thread, const unsigned* planes, const float* weights, float* maps, unsigned char* codes) {
    constexpr int ITEMS = GROUP * POOLED1 * PAIRS, LEFT = ITEMS % THREADS;
    constexpr int WHOLE = LEFT * FILTERS1 <= THREADS ? ITEMS - LEFT : ITEMS;
    convolve1_items<FILTERS1>(thread, 0, WHOLE, planes, weights, maps, codes);
    if (WHOLE < ITEMS) {
        convolve1_items<1>(thread, WHOLE * FILTERS1, ITEMS * FILTERS1, planes, weights, maps, codes);
    }
}

// The columns of a map that a window of the second layer sees, read as float2.
constexpr int SEEN2 = rounded_up(KERNEL + 1, 2);

__device__ __forceinline__ void read_columns(const float* row, float values[SEEN2]) {
#pragma unroll
    for (int k = 0; k < SEEN2; k += 2) {
        const float2 two = *reinterpret_cast<const float2*>(row + k);
        values[k] = two.x, values[k + 1] = two.y;
    }
}

// First maps to features and codes. An item is one window of two images, TILE2 filters.
__device__ __forceinline__ void convolve2(
    int thread, const float* weights, const float* maps, float* features, unsigned char* codes) {
    constexpr int HALF = GROUP / 2;
#pragma unroll 1
    for (int item = thread; item < WIDTH2 / TILE2 * WINDOWS2 * HALF; item += THREADS) {
        const int px = item % POOLED2, g = item / POOLED2 % HALF, py = item / (POOLED2 * HALF) % POOLED2;
        const int first = item / (WINDOWS2 * HALF) * TILE2;
        float sums[TILE2][2][4] = {};
        const float* w = weights + W2 + first;
#pragma unroll 1
        for (int channel = 0; channel < FILTERS1; ++channel) {
            const float* row = maps + g * PITCH + channel * PLANE + 2 * py * ROW + 2 * px;
            float above[2][SEEN2], below[2][SEEN2];
            read_columns(row, above[0]);
            read_columns(row + HALF * PITCH, above[1]);
#pragma unroll 1
            for (int ky = 0; ky < KERNEL; ++ky) {
                row += ROW;
                read_columns(row, below[0]);
                read_columns(row + HALF * PITCH, below[1]);
#pragma unroll
                for (int kx = 0; kx < KERNEL; ++kx, w += WIDTH2) {
                    float tap[TILE2];
                    read_vector<TILE2>(w, tap);
#pragma unroll
                    for (int f = 0; f < TILE2; ++f) {
#pragma unroll
                        for (int k = 0; k < 2; ++k) {
                            sums[f][k][0] += above[k][kx] * tap[f];
                            sums[f][k][1] += above[k][kx + 1] * tap[f];
                            sums[f][k][2] += below[k][kx] * tap[f];
                            sums[f][k][3] += below[k][kx + 1] * tap[f];
                        }
                    }
                }
#pragma unroll
                for (int k = 0; k < 2 * SEEN2; ++k) above[k / SEEN2][k % SEEN2] = below[k / SEEN2][k % SEEN2];
            }
        }
#pragma unroll
        for (int f = 0; f < TILE2; ++f) {
            const int filter = first + f;
            if (filter < FILTERS2) {
                const int feature = filter * WINDOWS2 + py * POOLED2 + px;
                const float bias = weights[B2 + filter];
                const unsigned one = code_of(sums[f][0], bias, features[g * PITCH2 + feature]);
                const unsigned two = code_of(sums[f][1], bias, features[(g + HALF) * PITCH2 + feature]);
                codes[g * FEATURES + feature] = one | two << 4;
            }
        }
    }
}

// Logits, losses (times their weights) and the slopes of the step's loss by the logits; a warp an image.
__device__ __forceinline__ void answer(
    int thread, const float* weights, const float* features, const void* targets, const float* image_weights,
    int left, float total, float* slopes, float* losses) {
    const int lane = thread % 32;
    for (int g = thread / 32; g < GROUP; g += WARPS) {
        float logits[OUTPUTS] = {};
        for (int f = lane; f < FEATURES; f += 32) {
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) {
                logits[o] += features[g * PITCH2 + f] * weights[W3 + f * OUTPUTS + o];
            }
        }
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o) logits[o] = sum_of_warp(logits[o]) + weights[B3 + o];
        const float weight = g < left ? image_weights[g] : 0.0f;
        float loss = 0.0f, slope[OUTPUTS];
        if (g >= left) {
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) slope[o] = 0.0f;
        } else if (SQUARED) {
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) {
                const float apart = logits[o] - static_cast<const float*>(targets)[g * OUTPUTS + o];
                loss += apart * apart / OUTPUTS;
                slope[o] = 2.0f * apart / OUTPUTS;
            }
        } else {
            const int label = static_cast<const int*>(targets)[g];
            float most = logits[0], sum = 0.0f, chosen = 0.0f;
#pragma unroll
            for (int o = 1; o < OUTPUTS; ++o) most = fmaxf(most, logits[o]);
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) {
                sum += slope[o] = expf(logits[o] - most);
                if (o == label) chosen = logits[o] - most;
            }
            loss = logf(sum) - chosen;
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) slope[o] = slope[o] / sum - (o == label ? 1.0f : 0.0f);
        }
        if (lane == 0) {
            losses[g] = loss * weight;
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) slopes[g * OUTPUTS + o] = slope[o] * (weight / total);
        }
    }
}

// Adds the dense layer's gradient; features become the slopes of what was pooled. A thread owns a feature.
__device__ __forceinline__ void dense_gradient(
    int thread, const float* weights, const float* slopes, const unsigned char* codes, float* features,
    float* gradient) {
    for (int f = thread; f < FEATURES; f += THREADS) {
        float w[OUTPUTS], sums[OUTPUTS] = {};
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o) w[o] = weights[W3 + f * OUTPUTS + o];
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            const float feature = features[g * PITCH2 + f];
            float slope = 0.0f;
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) {
                sums[o] += feature * slopes[g * OUTPUTS + o];
                slope += w[o] * slopes[g * OUTPUTS + o];
            }
            const int code = codes[g % (GROUP / 2) * FEATURES + f] >> (g < GROUP / 2 ? 0 : 4) & 15;
            features[g * PITCH2 + f] = code ? slope : 0.0f;
        }
#pragma unroll
        for (int o = 0; o < OUTPUTS; ++o) gradient[DENSE + f * OUTPUTS + o] += sums[o];
    }
    for (int o = thread; o < OUTPUTS; o += THREADS) {
        float sum = 0.0f;
        for (int g = 0; g < GROUP; ++g) sum += slopes[g * OUTPUTS + o];
        gradient[BIAS3 + o] += sum;
    }
}

// Adds the gradient of the second kernel and bias. A thread owns a filter and an input channel, for some of
// the images; of each window only the place that the maximum came from has a slope. A word read for each
// multiply-add, but a quarter of the multiply-adds; the lanes of a warp read at most four places of two
// planes, in banks of their own.
__device__ __forceinline__ void kernel_gradient2(
    int thread, const float* maps, const float* slopes, const unsigned char* codes, float* gradient) {
    constexpr int OWNERS = FILTERS1 * FILTERS2, SLICES = THREADS / OWNERS;
    const int filter = thread % FILTERS2, channel = thread / FILTERS2 % FILTERS1;
    const int slice = thread / OWNERS;
    float sums[TAPS] = {}, bias = 0.0f;
    if (slice < SLICES) {
#pragma unroll 1
        for (int g = slice; g < GROUP; g += SLICES) {
            const float* slope = slopes + g * PITCH2 + filter * WINDOWS2;
            const unsigned char* code = codes + g % (GROUP / 2) * FEATURES + filter * WINDOWS2;
            const int shift = g < GROUP / 2 ? 0 : 4;
            const unsigned lower = 0xCu << shift, right = 0xAu << shift;
            const float* map = maps + g * PITCH + channel * PLANE;
#pragma unroll 1
            for (int py = 0; py < POOLED2; ++py, map += 2 * ROW) {
#pragma unroll
                for (int px = 0; px < POOLED2; ++px) {
                    const float here = *slope++;
                    const unsigned bits = *code++;
                    const float* patch = map + 2 * px + (bits & lower ? ROW : 0) + (bits & right ? 1 : 0);
                    bias += here;
#pragma unroll
                    for (int tap = 0; tap < TAPS; ++tap) {
                        sums[tap] += here * patch[tap / KERNEL * ROW + tap % KERNEL];
                    }
                }
            }
        }
    }
#pragma unroll 1
    for (int turn = 0; turn < SLICES; ++turn) {
        if (turn == slice) {
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                gradient[KERNEL2 + (tap * FILTERS1 + channel) * FILTERS2 + filter] += sums[tap];
            }
            if (channel == 0) gradient[BIAS2 + filter] += bias;
        }
        __syncthreads();
    }
}

// The slopes of the first maps, over the maps. With N = 2 * POOLED2 rows of places before pooling, an item owns
// rows R and R + N of SHARE2 maps: KERNEL rows of slopes reach them together, whatever R is.
__device__ __forceinline__ void map_slopes(
    int thread, const float* weights, const float* slopes, const unsigned char* codes, float* maps) {
    constexpr int ROWS = 2 * POOLED2, COLUMNS = ROWS + KERNEL - 1;
    constexpr int FILTERS = FILTERS2 % 4 == 0 ? 4 : FILTERS2 % 2 == 0 ? 2 : 1;  // read at once
#pragma unroll 1
    for (int item = thread; item < GROUP * SHARES2 * ROWS; item += THREADS) {
        const int r = item % ROWS, first = item / ROWS % SHARES2 * SHARE2, g = item / (ROWS * SHARES2);
        const unsigned char* of_image = codes + g % (GROUP / 2) * FEATURES;
        float sums[SHARE2][COLUMNS] = {};
        float* to = maps + g * PITCH + first * PLANE;
        const auto write = [&](int row) {
#pragma unroll
            for (int c = 0; c < SHARE2; ++c) {
                if (first + c < FILTERS1) {
#pragma unroll
                    for (int k = 0; k < ROW; ++k) {
                        to[c * PLANE + row * ROW + k] = k < COLUMNS ? sums[c][k < COLUMNS ? k : 0] : 0.0f;
                    }
                }
            }
        };
#pragma unroll 1
        for (int ky = KERNEL - 1; ky >= 0; --ky) {
            if (ky == r && r < KERNEL - 1) {
                write(r + ROWS);
#pragma unroll
                for (int k = 0; k < SHARE2 * COLUMNS; ++k) sums[k / COLUMNS][k % COLUMNS] = 0.0f;
            }
            const int y = ky > r ? r + ROWS - ky : r - ky;
            const float* slope = slopes + g * PITCH2 + y / 2 * POOLED2;
            const unsigned char* code = of_image + y / 2 * POOLED2;
            const unsigned left = 1u << (y % 2 * 2 + (g < GROUP / 2 ? 0 : 4)), right = left << 1;
            const float* w = weights + W2 + (first * TAPS + ky * KERNEL) * WIDTH2;
#pragma unroll 1
            for (int filter = 0; filter < FILTERS2; filter += FILTERS, w += FILTERS) {
                float taps[SHARE2][KERNEL][FILTERS];
#pragma unroll
                for (int c = 0; c < SHARE2; ++c) {
                    // Where there is no such map, another's weights: its sums are not written.
                    const int channel = FILTERS1 % SHARE2 ? min(c, FILTERS1 - 1 - first) : c;
#pragma unroll
                    for (int kx = 0; kx < KERNEL; ++kx) {
                        read_vector<FILTERS>(w + (channel * TAPS + kx) * WIDTH2, taps[c][kx]);
                    }
                }
#pragma unroll
                for (int f = 0; f < FILTERS; ++f, slope += WINDOWS2, code += WINDOWS2) {
                    float row[ROWS];
#pragma unroll
                    for (int px = 0; px < POOLED2; ++px) {
                        const float here = slope[px];
                        const unsigned bits = code[px];
                        row[2 * px] = bits & left ? here : 0.0f;
                        row[2 * px + 1] = bits & right ? here : 0.0f;
                    }
#pragma unroll
                    for (int k = 0; k < SHARE2 * KERNEL * ROWS; ++k) {
                        const int c = k / (KERNEL * ROWS), kx = k / ROWS % KERNEL, x = k % ROWS;
                        sums[c][x + kx] += taps[c][kx][f] * row[x];
                    }
                }
            }
        }
        write(r);
        if (r == 0) {  // an odd row that no window reached
#pragma unroll
            for (int k = 0; k < SHARE2 * COLUMNS; ++k) sums[k / COLUMNS][k % COLUMNS] = 0.0f;
            for (int row = COLUMNS; row < POOLED1; ++row) write(row);
        }
    }
}

// Adds the gradient of the first kernel. A warp owns a channel and SHARE1 filters; a lane's items are
// two windows side by side, as in the forward pass. Warps that own nothing take the last tiles of 32 items
// from those that do, and leave what they find in `helped`, flat as the gradient.
constexpr int OWNERS1 = CHANNELS * SHARES1;
constexpr int HELPERS1 = WARPS > OWNERS1 ? WARPS - OWNERS1 : 0;
constexpr int ITEMS1 = GROUP * POOLED1 * PAIRS;
constexpr int HELPED1 = HELPERS1 ? (OWNERS1 + HELPERS1 - 1) / HELPERS1 : 0;  // owners that a helper has
constexpr int OWN1 = HELPERS1 ? 32 * (((ITEMS1 + 31) / 32 * HELPED1 + HELPED1) / (HELPED1 + 1)) : ITEMS1;

__device__ __forceinline__ void kernel_gradient1(
    int thread, const unsigned* planes, const float* slopes, const unsigned char* codes, float* gradient,
    float* helped) {
    const int lane = thread % 32, warp = thread / 32;
    const bool helps = HELPERS1 && warp >= OWNERS1;
    const int begin = helps ? OWN1 : 0, end = helps ? ITEMS1 : min(OWN1, ITEMS1);
#pragma unroll 1
    for (int owner = helps ? warp - OWNERS1 : warp; owner < OWNERS1; owner += helps ? HELPERS1 : WARPS) {
        const int channel = owner % CHANNELS, first = owner / CHANNELS * SHARE1;
        constexpr int COUNT = SHARE1 * TAPS;
        float sums[COUNT] = {};
#pragma unroll 1
        for (int item = begin + lane; item < end; item += 32) {
            const int pair = item % PAIRS, py = item / PAIRS % POOLED1, g = item / (PAIRS * POOLED1);
            float spread[SHARE1][2][4];  // by row, column of the two windows
#pragma unroll
            for (int f = 0; f < SHARE1; ++f) {
                const int filter = FILTERS1 % SHARE1 ? min(first + f, FILTERS1 - 1) : first + f;
                const float2 two =
                    *reinterpret_cast<const float2*>(slopes + g * PITCH + filter * PLANE + py * ROW + 2 * pair);
                unsigned bits = codes[((g * FILTERS1 + filter) * POOLED1 + py) * PAIRS + pair];
                if (POOLED1 % 2 && pair == PAIRS - 1) bits &= 15;
#pragma unroll
                for (int k = 0; k < 4; ++k) {
                    spread[f][k / 2][k % 2] = bits & 1u << k ? two.x : 0.0f;
                    spread[f][k / 2][2 + k % 2] = bits & 16u << k ? two.y : 0.0f;
                }
            }
            const unsigned* row = planes + g * IMAGE + (channel * SIZE + 2 * py) * WORDS + pair;
#pragma unroll
            for (int y = 0; y <= KERNEL; ++y, row += WORDS) {
                float seen[SEEN];
                read_pixels(row, seen);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int ky = y - half;
                    if (ky < 0 || ky >= KERNEL) continue;
#pragma unroll
                    for (int f = 0; f < SHARE1; ++f) {
#pragma unroll
                        for (int k = 0; k < 4 * KERNEL; ++k) {
                            const int kx = k % KERNEL, column = k / KERNEL;
                            sums[f * TAPS + ky * KERNEL + kx] += spread[f][half][column] * seen[column + kx];
                        }
                    }
                }
            }
        }
        using Sums = Halves<COUNT, 16>;
        Sums::add(sums, lane);
#pragma unroll
        for (int k = 0; k < Sums::LEFT; ++k) {
            const int number = Sums::number(k, lane);
            const int filter = first + number / TAPS, tap = number % TAPS;
            if (number < 0 || filter >= FILTERS1) continue;
            const int place = (tap * CHANNELS + channel) * FILTERS1 + filter;
            if (helps) {
                helped[place] = sums[k];
            } else {
                gradient[place] += sums[k];
            }
        }
    }
}

// Adds the gradient of the first bias; a warp a filter. Apart from the kernel's, whose sums fill the registers.
__device__ __forceinline__ void bias_gradient1(
    int thread, const float* slopes, const unsigned char* codes, float* gradient) {
    const int lane = thread % 32;
    for (int filter = thread / 32; filter < FILTERS1; filter += WARPS) {
        float sum = 0.0f;
        for (int item = lane; item < ITEMS1; item += 32) {
            const int pair = item % (POOLED1 * PAIRS), g = item / (POOLED1 * PAIRS);
            const float2 two =
                *reinterpret_cast<const float2*>(slopes + g * PITCH + filter * PLANE + 2 * pair);
            const unsigned bits = codes[(g * FILTERS1 + filter) * POOLED1 * PAIRS + pair];
            const bool only = POOLED1 % 2 && pair % PAIRS == PAIRS - 1;  // no second window
            sum += (bits & 15 ? two.x : 0.0f) + (bits & 240 && !only ? two.y : 0.0f);
        }
        sum = sum_of_warp(sum);
        if (lane == 0) gradient[BIAS1 + filter] += sum;
    }
}

// The number of this thread, turned by whole warps: phases that do not have work for every warp burden each of
// the four schedulers in turn. Read anew each time, so that what depends on it is not kept in registers.
__device__ __forceinline__ int turned(int turn) {
#ifdef __CUDACC__
    unsigned number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
#else
    const unsigned number = threadIdx.x;
#endif
    return (number + 32u * turn) % THREADS;
}

// Arrays: images uint8 (N, SIZE, SIZE, 3); index int32 (M, S, B); targets (M, S, B) int32, or float32 with
// OUTPUTS more; image_weights float32 (S, B); rate float32 (1); parameters and moments float32
// (M, PARAMETERS), counts int32 (M): read from the first and written to the second of each, which may be the
// same; losses float32 (M, S). One block for each of M networks, SHARED_WORDS * 4 bytes of shared memory.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) train_epoch(
    const unsigned char* images, int count, const int* index, const void* targets, const float* image_weights,
    const float* rate, const float* old_parameters, const float* old_means, const float* old_squares,
    const int* old_counts, float* parameters, float* means, float* squares, int* counts, float* losses,
    int steps, int batch) {
    extern __shared__ __align__(16) float memory[];
    float* const weights = memory;
    float* const gradient = memory + AT_GRADIENT;
    float* const maps = memory + AT_MAPS;
    float* const features = memory + AT_FEATURES;
    float* const slopes = memory + AT_SLOPES;
    float* const group_losses = memory + AT_LOSSES;
    float* const total = memory + AT_TOTAL;  // of the step's weights; then, its losses
    unsigned* const planes = reinterpret_cast<unsigned*>(memory + AT_IMAGES);
    unsigned char* const codes1 = reinterpret_cast<unsigned char*>(memory + AT_CODES1);
    unsigned char* const codes2 = reinterpret_cast<unsigned char*>(memory + AT_CODES2);

    const long long model = blockIdx.x;
    const long long begin = model * PARAMETERS;
    for (int k = threadIdx.x; k < SHARED_WORDS; k += THREADS) memory[k] = 0.0f;
    __syncthreads();
    for (int k = threadIdx.x; k < PARAMETERS; k += THREADS) {
        weights[place_of(k)] = old_parameters[begin + k];
        means[begin + k] = old_means[begin + k];
        squares[begin + k] = old_squares[begin + k];
    }
    const int done = old_counts[model];

#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        const float* weight = image_weights + (long long)step * batch;
        const long long at = (model * steps + step) * batch;
        if (threadIdx.x < 32) {
            float sum = 0.0f;
            for (int k = threadIdx.x; k < batch; k += 32) sum += weight[k];
            sum = sum_of_warp(sum);
            if (threadIdx.x == 0) total[0] = sum, total[1] = 0.0f;
        }
#pragma unroll 1
        for (int group = 0; group < batch; group += GROUP) {
            const int turn = blockIdx.x + step + group / GROUP;
            const int left = batch - group;
            stage(turned(turn), images, index + at + group, left, count, planes);
            __syncthreads();
            convolve1(turned(turn), planes, weights, maps, codes1);
            __syncthreads();
            convolve2(turned(turn), weights, maps, features, codes2);
            __syncthreads();
            const char* here = static_cast<const char*>(targets) + (at + group) * 4 * (SQUARED ? OUTPUTS : 1);
            answer(
                turned(turn), weights, features, here, weight + group, left, *total, slopes, group_losses);
            __syncthreads();
            if (threadIdx.x == 0) {
                for (int g = 0; g < GROUP; ++g) total[1] += group_losses[g];
            }
            dense_gradient(turned(turn), weights, slopes, codes2, features, gradient);
            __syncthreads();
            kernel_gradient2(turned(turn), maps, features, codes2, gradient);  // ends with a barrier
            map_slopes(turned(turn), weights, features, codes2, maps);
            __syncthreads();
            bias_gradient1(turned(turn), maps, codes1, gradient);
            kernel_gradient1(turned(turn), planes, maps, codes1, gradient, features);
            __syncthreads();
            if (HELPERS1) {  // by the threads that will read it
                for (int k = threadIdx.x; k < BIAS1; k += THREADS) gradient[k] += features[k];
            }
        }
        if (threadIdx.x == 0) losses[model * steps + step] = total[1] / total[0] * total[0];
        const float decay1 = 0.9f, decay2 = 0.999f, least = 1e-8f;
        const float t = static_cast<float>(done + step + 1);
        const float correction1 = 1.0f - powf(decay1, t), correction2 = 1.0f - powf(decay2, t);
#pragma unroll 1
        for (int k = threadIdx.x; k < PARAMETERS; k += THREADS) {
            const float slope = gradient[k];
            const float mean = 0.1f * slope + decay1 * means[begin + k];
            const float square = 0.001f * (slope * slope) + decay2 * squares[begin + k];
            means[begin + k] = mean;
            squares[begin + k] = square;
            gradient[k] = 0.0f;
            weights[place_of(k)] -= *rate * (mean / correction1 / (sqrtf(square / correction2) + least));
        }
        __syncthreads();
    }
    for (int k = threadIdx.x; k < PARAMETERS; k += THREADS) parameters[begin + k] = weights[place_of(k)];
    if (threadIdx.x == 0) counts[model] = done + steps;
}
