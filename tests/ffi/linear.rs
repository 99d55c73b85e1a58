// A Q4_K projection through the C ABI, with rustc alone: the program quantizes a matrix, makes a weight of
// it, multiplies, and compares with plain loops over the dequantized values.
use std::ffi::CStr;
use std::os::raw::{c_char, c_void};
use std::ptr;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Buffer {
    handle: u64,
    offset: u64,
    size: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Tensor {
    data: Buffer,
    expert_stride: u64,
    dtype: i32,
    memory: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Part {
    struct_size: u32,
    format: i32,
    n: i64,
    k: i64,
    n_begin: i64,
    n_end: i64,
    k_begin: i64,
    k_end: i64,
    group_size: i32,
    zero_point: i32,
    symmetric: i32,
    reserved: i32,
    qweight: Tensor,
    scales: Tensor,
    qzeros: Tensor,
    g_idx: Tensor,
    bias: Tensor,
    n_order: Tensor,
}

/// Its first fields: struct_size says that the others are not told.
#[repr(C)]
struct ContextDesc {
    struct_size: u32,
    backend: i32,
    device: i32,
    cpu_threads: i32,
}

#[repr(C)]
struct WeightDesc {
    struct_size: u32,
    flags: u32,
    parts: *const Part,
    num_parts: i32,
    num_experts: i32,
    apply_bias: i32,
    reserved: i32,
    storage: Buffer,
    source: *mut c_void,
    progress: Option<extern "C" fn(*mut c_void, u64, u64) -> i32>,
    progress_user: *mut c_void,
}

#[repr(C)]
#[derive(Default)]
struct LinearArgs {
    struct_size: u32,
    flags: u32,
    m: i64,
    in_type: i32,
    out_type: i32,
    addend_type: i32,
    act: i32,
    act_alpha: f32,
    act_limit: f32,
    in_stride: i64,
    out_stride: i64,
    addend_stride: i64,
    input: Buffer,
    out: Buffer,
    addend: Buffer,
    in_rows: Buffer,
    m_dev: Buffer,
    workspace: Buffer,
    routing: usize,
}

#[repr(C)]
struct QuantizeArgs {
    struct_size: u32,
    format: i32,
    n: i64,
    k: i64,
    group_size: i32,
    symmetric: i32,
    in_type: i32,
    scales_type: i32,
    input: *const c_void,
    in_stride: i64,
    qweight: *mut c_void,
    scales: *mut c_void,
    qzeros: *mut c_void,
}

#[link(name = "ferrumk")]
extern "C" {
    fn fmk_build_info() -> *const c_char;
    fn fmk_last_error() -> *const c_char;
    fn fmk_context_create(out: *mut *mut c_void, desc: *const ContextDesc) -> i32;
    fn fmk_context_destroy(ctx: *mut c_void);
    fn fmk_queue_create(out: *mut *mut c_void, ctx: *mut c_void, native: *mut c_void) -> i32;
    fn fmk_queue_destroy(queue: *mut c_void);
    fn fmk_quantize_size(args: *const QuantizeArgs, qweight: *mut u64, scales: *mut u64, qzeros: *mut u64) -> i32;
    fn fmk_quantize(ctx: *mut c_void, args: *const QuantizeArgs) -> i32;
    fn fmk_weight_create(out: *mut *mut c_void, queue: *mut c_void, desc: *const WeightDesc) -> i32;
    fn fmk_weight_dequantize(
        queue: *mut c_void,
        weight: *const c_void,
        expert: i32,
        out: *const Buffer,
        out_type: i32,
        out_stride: i64,
    ) -> i32;
    fn fmk_weight_destroy(weight: *mut c_void, queue: *mut c_void);
    fn fmk_workspace_size(weight: *const c_void, args: *const LinearArgs, least: *mut u64, best: *mut u64) -> i32;
    fn fmk_linear(queue: *mut c_void, weight: *const c_void, args: *const LinearArgs) -> i32;
}

const CPU: i32 = 1;
const F32: i32 = 3;
const Q4_K: i32 = 5;
const EINVAL: i32 = -1;
const M: usize = 3;
const N: usize = 96;
const K: usize = 512;

fn text(pointer: *const c_char) -> String {
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn check(status: i32) {
    assert_eq!(status, 0, "{}", text(unsafe { fmk_last_error() }));
}

fn buffer<T>(values: &[T]) -> Buffer {
    Buffer { handle: values.as_ptr() as u64, offset: 0, size: std::mem::size_of_val(values) as u64 }
}

fn buffer_mut<T>(values: &mut [T]) -> Buffer {
    Buffer { handle: values.as_mut_ptr() as u64, ..buffer(values) }
}

fn size_of<T>() -> u32 {
    std::mem::size_of::<T>() as u32
}

/// Uniform in -1..1.
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn main() {
    let mut state = 1;
    let values: Vec<f32> = (0..N * K).map(|_| random(&mut state)).collect();
    let input: Vec<f32> = (0..M * K).map(|_| random(&mut state)).collect();
    let mut weights = vec![0f32; N * K];
    let mut out = vec![0f32; M * N];
    let (mut ctx, mut queue, mut weight) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    unsafe {
        println!("{}", text(fmk_build_info()));
        let on_cpu =
            ContextDesc { struct_size: size_of::<ContextDesc>(), backend: CPU, device: 0, cpu_threads: 0 };
        check(fmk_context_create(&mut ctx, &on_cpu));
        check(fmk_queue_create(&mut queue, ctx, ptr::null_mut()));

        let mut quantize = QuantizeArgs {
            struct_size: size_of::<QuantizeArgs>(),
            format: Q4_K,
            n: N as i64,
            k: K as i64,
            group_size: 0,
            symmetric: 0,
            in_type: F32,
            scales_type: 0,
            input: values.as_ptr().cast(),
            in_stride: 0,
            qweight: ptr::null_mut(),
            scales: ptr::null_mut(),
            qzeros: ptr::null_mut(),
        };
        let (mut size, mut none) = (0, [0u64; 2]);
        check(fmk_quantize_size(&quantize, &mut size, &mut none[0], &mut none[1]));
        assert_eq!((size as usize, none), (N * K / 256 * 144, [0, 0]));
        let mut blocks = vec![0u8; size as usize];
        quantize.qweight = blocks.as_mut_ptr().cast();
        check(fmk_quantize(ctx, &quantize));

        let mut part = Part {
            struct_size: size_of::<Part>(),
            format: Q4_K,
            n: N as i64,
            k: K as i64 + 1,
            qweight: Tensor { data: buffer(&blocks), ..Default::default() },
            ..Default::default()
        };
        let mut desc = WeightDesc {
            struct_size: size_of::<WeightDesc>(),
            flags: 0,
            parts: &part,
            num_parts: 1,
            num_experts: 0,
            apply_bias: 0,
            reserved: 0,
            storage: Buffer::default(),
            source: ptr::null_mut(),
            progress: None,
            progress_user: ptr::null_mut(),
        };
        assert_eq!(fmk_weight_create(&mut weight, queue, &desc), EINVAL);
        assert!(text(fmk_last_error()).contains("513"), "{}", text(fmk_last_error()));
        part.k = K as i64;
        desc.parts = &part;
        check(fmk_weight_create(&mut weight, queue, &desc));
        check(fmk_weight_dequantize(queue, weight, 0, &buffer_mut(&mut weights), F32, 0));

        let mut args = LinearArgs {
            struct_size: size_of::<LinearArgs>(),
            m: M as i64,
            in_type: F32,
            out_type: F32,
            input: buffer(&input),
            out: buffer_mut(&mut out),
            ..Default::default()
        };
        let (mut least, mut best) = (0, 0);
        check(fmk_workspace_size(weight, &args, &mut least, &mut best));
        let mut workspace = vec![0u8; best as usize + 256];
        args.workspace = Buffer {
            handle: (workspace.as_mut_ptr() as u64 + 255) / 256 * 256,
            offset: 0,
            size: best,
        };
        check(fmk_linear(queue, weight, &args));
        fmk_context_destroy(ctx);
        fmk_weight_destroy(weight, queue);
        fmk_queue_destroy(queue);
    }

    let (mut error, mut norm) = (0f64, 0f64);
    for m in 0..M {
        for n in 0..N {
            let want: f64 =
                (0..K).map(|k| f64::from(input[m * K + k]) * f64::from(weights[n * K + k])).sum();
            error += (f64::from(out[m * N + n]) - want).powi(2);
            norm += want.powi(2);
        }
    }
    let relative = (error / norm).sqrt();
    println!("relative error {relative:.2e}");
    assert!(relative <= 6e-3);
}
