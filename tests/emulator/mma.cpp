/* mma.m16n8k16 with float sums. Of lane l, with g = l / 4 and t = l % 4:
 *     a[0]: row g, k 2t and 2t+1   a[1]: row g+8, the same k   a[2], a[3]: the same rows, k 2t+8 and 2t+9
 *     b0: k 2t and 2t+1, column g   b1: k 2t+8 and 2t+9
 *     c[0], c[1]: row g, columns 2t and 2t+1   c[2], c[3]: row g+8 */
#include "emulator.h"

namespace emulator {

constexpr int M = 16, N = 8, K = 16;

template <float number(uint16_t)>
__attribute__((target_clones("avx2", "default"))) static void multiply(const Warp *warp) {
    uint16_t a_bits[M * K], b_bits[K * N];
    for (unsigned lane = 0; lane < WARP; lane++) {
        const Mma *mine = static_cast<const Mma *>(request_of(warp, lane));
        unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = g + i % 2 * 8, k = 2 * t + i / 2 * 8;
            a_bits[row * K + k] = static_cast<uint16_t>(mine->a[i]);
            a_bits[row * K + k + 1] = static_cast<uint16_t>(mine->a[i] >> 16);
        }
        for (unsigned i = 0; i < 2; i++) {
            uint32_t pair = i ? mine->b1 : mine->b0;
            unsigned k = 2 * t + i * 8;
            b_bits[k * N + g] = static_cast<uint16_t>(pair);
            b_bits[(k + 1) * N + g] = static_cast<uint16_t>(pair >> 16);
        }
    }
    float a[M * K], b[K * N], sum[M][N];
    for (int i = 0; i < M * K; i++)
        a[i] = number(a_bits[i]);
    for (int i = 0; i < K * N; i++)
        b[i] = number(b_bits[i]);
    for (int row = 0; row < M; row++) {
        float s[N] = {};
        for (int k = 0; k < K; k++)
            for (int column = 0; column < N; column++)
                s[column] += a[row * K + k] * b[k * N + column];
        for (int column = 0; column < N; column++)
            sum[row][column] = s[column];
    }
    for (unsigned lane = 0; lane < WARP; lane++) {
        const Mma *mine = static_cast<const Mma *>(request_of(warp, lane));
        unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++)
            mine->d[i] = mine->c[i] + sum[g + i / 2 * 8][2 * t + i % 2];
    }
}

template <float number(uint16_t)> static void mma(Mma &mine) {
    if (Warp *warp = arrive(WHOLE_WARP, Collective::mma, &mine)) {
        multiply<number>(warp);
        depart(warp, WHOLE_WARP);
    }
}

void mma_f16(Mma mine) {
    mma<f16_number>(mine);
}

void mma_bf16(Mma mine) {
    mma<bf16_number>(mine);
}

} // namespace emulator
