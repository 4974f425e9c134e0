// The GPU's kernel, as it is, for `ctypes`.

#include "cuda_on_cpu.h"
#include "epoch.cu"

extern "C" int shared_bytes() { return 4 * SHARED_WORDS; }

extern "C" void run(
    int blocks, const unsigned char* images, int count, const int* index, const void* targets,
    const float* image_weights, const float* rate, const float* old_parameters, const float* old_means,
    const float* old_squares, const int* old_counts, float* parameters, float* means, float* squares, int* counts,
    float* losses, int steps, int batch) {
    fibers::run_grid(blocks, THREADS, [&] {
        train_epoch(
            images, count, index, targets, image_weights, rate, old_parameters, old_means, old_squares, old_counts,
            parameters, means, squares, counts, losses, steps, batch);
    });
}
