/* Matrices of 16 by 16 that a subgroup holds together: VK_KHR_cooperative_matrix, or with COOPMAT_NV the older
 * VK_NV_cooperative_matrix, which compilers of before 2024 know as well. A is [16 tokens][16 k], B [16 k][16 rows of
 * weights], the sums [16 tokens][16 rows]; arrays in shared memory are of 16 bytes an element, `at` and `stride` count
 * these. */
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require

#ifdef COOPMAT_NV
#extension GL_NV_cooperative_matrix : require
#define MATRIX_A fcoopmatNV<16, gl_ScopeSubgroup, 16, 16>
#define MATRIX_B fcoopmatNV<16, gl_ScopeSubgroup, 16, 16>
#define MATRIX_SUM fcoopmatNV<32, gl_ScopeSubgroup, 16, 16>
#define LOAD_A(matrix, array, at, stride) coopMatLoadNV(matrix, array, at, stride, false)
#define LOAD_B(matrix, array, at, stride) coopMatLoadNV(matrix, array, at, stride, true)
#define STORE_SUM(matrix, array, at, stride) coopMatStoreNV(matrix, array, at, stride, false)
#define MULTIPLY_ADD(a, b, sum) coopMatMulAddNV(a, b, sum)
#else
#extension GL_KHR_cooperative_matrix : require
#define MATRIX_A coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseA>
#define MATRIX_B coopmat<float16_t, gl_ScopeSubgroup, 16, 16, gl_MatrixUseB>
#define MATRIX_SUM coopmat<float, gl_ScopeSubgroup, 16, 16, gl_MatrixUseAccumulator>
#define LOAD_A(matrix, array, at, stride)                                                                    \
    coopMatLoad(matrix, array, at, stride, gl_CooperativeMatrixLayoutRowMajor)
#define LOAD_B(matrix, array, at, stride)                                                                    \
    coopMatLoad(matrix, array, at, stride, gl_CooperativeMatrixLayoutColumnMajor)
#define STORE_SUM(matrix, array, at, stride)                                                                 \
    coopMatStore(matrix, array, at, stride, gl_CooperativeMatrixLayoutRowMajor)
#define MULTIPLY_ADD(a, b, sum) coopMatMulAdd(a, b, sum)
#endif
