/* Tensor maps: what cuTensorMapEncodeTiled makes, and copies of boxes by them. */
#include "async.h"
#include "races.h"

#include <cuda.h>
#include <string.h>

namespace emulator {

constexpr int MOST_DIMENSIONS = 5;

struct TensorMap {
    uint32_t mark; /* MARK: made by cuTensorMapEncodeTiled */
    int32_t dimensions, number_bytes;
    uint32_t swizzled;
    const uint8_t *at;
    uint32_t box[MOST_DIMENSIONS];
    uint32_t sizes[MOST_DIMENSIONS];
    uint64_t strides[MOST_DIMENSIONS - 1]; /* bytes, of dimensions 1 .. */
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "it lies in the driver's");

constexpr uint32_t MARK = 0x70616d74;

static uint32_t bytes_of(const TensorMap &map) {
    uint32_t bytes = static_cast<uint32_t>(map.number_bytes);
    for (int d = 0; d < map.dimensions; d++)
        bytes *= map.box[d];
    return bytes;
}

/* Copies a box to a block's shared memory; what lies outside of the matrix becomes zeros. */
static void copy(const TensorMap &map, uint32_t to, const int64_t *first) {
    const uint32_t size = static_cast<uint32_t>(map.number_bytes), row_bytes = map.box[0] * size;
    const uint32_t rows = bytes_of(map) / row_bytes;
    for (uint32_t row = 0; row < rows; row++) {
        bool there = true;
        const uint8_t *from = map.at;
        uint32_t rest = row;
        for (int d = 1; d < map.dimensions; d++) {
            int64_t at = first[d] + rest % map.box[d];
            rest /= map.box[d];
            there = there && at >= 0 && at < map.sizes[d];
            from += at * static_cast<int64_t>(map.strides[d - 1]);
        }
        for (uint32_t i = 0; i < map.box[0]; i++) {
            int64_t at = first[0] + i;
            uint32_t offset = to + row * row_bytes + i * size;
            if (map.swizzled)
                offset ^= (offset >> 7 & 7) << 4;
            if (there && at >= 0 && at < map.sizes[0])
                memcpy(shared_pointer(offset), from + at * size, size);
            else
                memset(shared_pointer(offset), 0, size);
        }
    }
}

void copy_box(uint32_t blocks, uint32_t to, const void *map_at, const int32_t *at, int dimensions,
              uint32_t barrier) {
    TensorMap map;
    memcpy(&map, map_at, sizeof map);
    if (reinterpret_cast<uintptr_t>(map_at) % 64 || map.mark != MARK || map.dimensions != dimensions)
        fail("%p is no tensor map of %d dimensions, or not aligned to 64", map_at, dimensions);
    if (to % (map.swizzled ? 1024 : 128))
        fail("a box is copied to 0x%08x, which is not aligned", to);
    int64_t first[MOST_DIMENSIONS] = {};
    for (int d = 0; d < dimensions; d++)
        first[d] = at[d];
    for (unsigned rank = 0; rank < cluster_size(); rank++)
        if (blocks >> rank & 1) {
            races::copied(shared_pointer(address_in(to, rank)), nullptr, bytes_of(map));
            will_complete(address_in(barrier, rank));
            do_in_time([=] {
                copy(map, address_in(to, rank), first);
                mbarrier_complete(address_in(barrier, rank), bytes_of(map));
            });
        }
    if (blocks >> cluster_size())
        fail("a box is copied to blocks 0x%x of a cluster of %u", blocks, cluster_size());
}

} // namespace emulator

using namespace emulator;

/* What the driver demands, of the maps that there are here: numbers of two bytes, boxes of up to 128 bytes.
 */
CUresult cuTensorMapEncodeTiled(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *element_strides, CUtensorMapInterleave interleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                CUtensorMapFloatOOBfill fill) {
    bool half = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type == CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    if (!out || reinterpret_cast<uintptr_t>(out) % 64 || !half || rank < 1 || rank > MOST_DIMENSIONS ||
        reinterpret_cast<uintptr_t>(address) % 16 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || box[0] * 2 % 16 ||
        (swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && swizzle != CU_TENSOR_MAP_SWIZZLE_128B) ||
        (swizzle == CU_TENSOR_MAP_SWIZZLE_128B && box[0] * 2 > 128))
        return CUDA_ERROR_INVALID_VALUE;
    TensorMap map = {MARK,
                     static_cast<int32_t>(rank),
                     2,
                     swizzle == CU_TENSOR_MAP_SWIZZLE_128B,
                     static_cast<const uint8_t *>(address),
                     {},
                     {},
                     {}};
    for (cuuint32_t d = 0; d < rank; d++) {
        if (!sizes[d] || sizes[d] > uint64_t(1) << 32 || !box[d] || box[d] > 256 || element_strides[d] != 1)
            return CUDA_ERROR_INVALID_VALUE;
        if (d && (strides[d - 1] % 16 || strides[d - 1] >= uint64_t(1) << 40))
            return CUDA_ERROR_INVALID_VALUE;
        map.box[d] = box[d];
        map.sizes[d] = static_cast<uint32_t>(sizes[d]);
        if (d)
            map.strides[d - 1] = strides[d - 1];
    }
    memset(out, 0, sizeof *out);
    memcpy(out, &map, sizeof map);
    return CUDA_SUCCESS;
}
