/* wgmma.mma_async with float sums, a warp's share of it: its 16 rows of A from registers, as in mma.cpp, by n
 * rows of B in shared memory, of 16 k each, where the descriptor says, swizzled by 128 bytes. Of the sums of
 * columns 8 j .. 8 j + 7 a lane has d[4 j .. 4 j + 3], as c in mma.cpp.
 *
 * A product is made at once, or as late as may be: when its group is waited for. */
#include "async.h"
#include "races.h"
#include "emulator.h"

#include <deque>

namespace emulator {

constexpr int M = 16, K = 16, MOST_N = 256;

/* A warp's. */
struct Job {
    Wgmma of[WARP];
    unsigned group;
};

struct WarpJobs {
    std::deque<Job> jobs;
    unsigned group;
};

void forget_jobs(WarpJobs *jobs) {
    if (jobs)
        jobs->jobs.clear();
}

struct Descriptor {
    uint32_t start, block; /* bytes: the first row, from eight rows to the next eight */
};

static Descriptor read_descriptor(uint64_t bits) {
    const uint64_t fields = uint64_t(0x3fff) | uint64_t(0x3fff) << 16 | uint64_t(0x3fff) << 32;
    if (bits >> 62 != 1 || bits & ~fields & ~(uint64_t(3) << 62))
        fail("descriptor 0x%016llx: 128 bytes of swizzle and no offset are what is emulated",
             static_cast<unsigned long long>(bits));
    return {static_cast<uint32_t>(bits & 0x3fff) << 4, static_cast<uint32_t>(bits >> 32 & 0x3fff) << 4};
}

/* The 16 numbers of row r. */
static const uint8_t *row_of(const Descriptor &b, int r, int half) {
    uint32_t at =
        b.start + static_cast<uint32_t>(r / 8) * b.block + static_cast<uint32_t>(r % 8 * 128 + half * 16);
    return shared_pointer(at ^ (at >> 7 & 7) << 4);
}

template <float number(uint16_t)>
__attribute__((target_clones("avx2", "default"))) static void multiply(const Job &job) {
    const int n = job.of[0].n;
    const Descriptor where = read_descriptor(job.of[0].b);
    float a[M][K], b[K][MOST_N];
    for (unsigned lane = 0; lane < WARP; lane++) {
        unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            uint32_t pair = job.of[lane].a[i];
            a[g + i % 2 * 8][2 * t + i / 2 * 8] = number(static_cast<uint16_t>(pair));
            a[g + i % 2 * 8][2 * t + i / 2 * 8 + 1] = number(static_cast<uint16_t>(pair >> 16));
        }
    }
    for (int r = 0; r < n; r++)
        for (int half = 0; half < 2; half++) {
            uint16_t numbers[8];
            memcpy(numbers, row_of(where, r, half), sizeof numbers);
            for (int k = 0; k < 8; k++)
                b[8 * half + k][r] = number(numbers[k]);
        }
    for (int row = 0; row < M; row++) {
        float sum[MOST_N] = {};
        for (int k = 0; k < K; k++)
            for (int column = 0; column < n; column++)
                sum[column] += a[row][k] * b[k][column];
        for (int column = 0; column < n; column++) {
            const Wgmma &of = job.of[row % 8 * 4 + column % 8 / 2];
            float *d = of.d + column / 8 * 4 + row / 8 * 2 + column % 2;
            *d = (of.add ? *d : 0.0f) + sum[column];
        }
    }
}

static void make(const Job &job) {
    if (job.of[0].type == Number::f16)
        multiply<f16_number>(job);
    else
        multiply<bf16_number>(job);
}

static WarpJobs *own_jobs() {
    WarpJobs *&jobs = jobs_of(self()->warp);
    if (!jobs)
        jobs = new WarpJobs{};
    return jobs;
}

void wgmma(const Wgmma &mine) {
    Wgmma request = mine;
    Warp *warp = arrive(WHOLE_WARP, Collective::wgmma, &request);
    if (!warp)
        return;
    Job job;
    for (unsigned lane = 0; lane < WARP; lane++) {
        job.of[lane] = *static_cast<Wgmma *>(request_of(warp, lane));
        if (job.of[lane].b != job.of[0].b)
            fail("lanes of a wgmma have different descriptors");
    }
    races::Unseen unseen;
    WarpJobs *jobs = own_jobs();
    job.group = jobs->group;
    if (is_late())
        jobs->jobs.push_back(job);
    else
        make(job);
    depart(warp, WHOLE_WARP);
}

void wgmma_end_group() {
    if (Warp *warp = arrive(WHOLE_WARP, Collective::sync, nullptr)) {
        own_jobs()->group++;
        depart(warp, WHOLE_WARP);
    }
}

void wgmma_wait(unsigned pending) {
    Warp *warp = arrive(WHOLE_WARP, Collective::sync, nullptr);
    if (!warp)
        return;
    races::Unseen unseen;
    WarpJobs *jobs = own_jobs();
    while (!jobs->jobs.empty() && jobs->group - jobs->jobs.front().group > pending) {
        make(jobs->jobs.front());
        jobs->jobs.pop_front();
    }
    depart(warp, WHOLE_WARP);
}

} // namespace emulator
