/* Matrices of 16 by 16 that a subgroup holds together, by VK_NV_cooperative_matrix: VK_KHR_cooperative_matrix is the
 * same by other names, which compilers know from 2024 on. A is [16 tokens][16 k], B [16 k][16 rows of weights], the
 * sums [16 tokens][16 rows]; arrays in shared memory are of 16 bytes an element, `at` and `stride` count these. */
#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_NV_cooperative_matrix : require

#define MATRIX_A fcoopmatNV<16, gl_ScopeSubgroup, 16, 16>
#define MATRIX_B fcoopmatNV<16, gl_ScopeSubgroup, 16, 16>
#define MATRIX_SUM fcoopmatNV<32, gl_ScopeSubgroup, 16, 16>
#define LOAD_A(matrix, array, at, stride) coopMatLoadNV(matrix, array, at, stride, false)
#define LOAD_B(matrix, array, at, stride) coopMatLoadNV(matrix, array, at, stride, true)
/* The same with weights on the left: [16 rows of weights][16 k] by [16 k][8 tokens]. */
#define MATRIX_WEIGHTS fcoopmatNV<16, gl_ScopeSubgroup, 16, 16>
#define MATRIX_TOKENS fcoopmatNV<16, gl_ScopeSubgroup, 16, 8>
#define MATRIX_FEW fcoopmatNV<32, gl_ScopeSubgroup, 16, 8>
#define LOAD_TOKENS(matrix, array, at, stride) coopMatLoadNV(matrix, array, at, stride, true)
#define STORE_SUM(matrix, array, at, stride) coopMatStoreNV(matrix, array, at, stride, false)
#define MULTIPLY_ADD(a, b, sum) coopMatMulAddNV(a, b, sum)
