"""The ferrumk command end to end, on files that the official Python packages write, and its own files read
back by them.

    test_command.py FERRUMK [unittest's arguments]

FERRUMK_TEST_DISABLE names features to do without. FERRUMK_TEST_EMULATOR is the folder of tests/emulator's libcuda;
FERRUMK_TEST_BACKEND=cuda stands for a GPU that is there; without either the tests of CUDA are skipped. Exit status 77:
a package is missing."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

try:
    import gguf
    import numpy as np
    from safetensors.numpy import load_file, save_file
except ImportError as error:
    print("skipped:", error)
    sys.exit(77)

FERRUMK = sys.argv.pop(1)
DEFAULT_BOUND, EXACT_BOUND = 6e-3, 1e-6
SEED = 7
EMULATOR = os.environ.get("FERRUMK_TEST_EMULATOR")
VULKAN = os.environ.get("FERRUMK_TEST_VULKAN") == "1"
GPU = os.environ.get("FERRUMK_TEST_BACKEND") == "cuda"
backend = "cpu"  # of the class whose tests are run


def default_bound(results):
    """The bound is one on a projection's worth of results. Few of them scatter around the mean, which int8
    activations with a scale per 16 put at 4.7e-3, by a share of about one over the square root of their number;
    five times that is allowed."""
    return max(DEFAULT_BOUND, 4.7e-3 * (1 + 5 / np.sqrt(results)))


def ferrumk(*arguments, status=0):
    words = [str(a) for a in arguments]
    disable = os.environ.get("FERRUMK_TEST_DISABLE")
    if disable and words and words[0] in ("devices", "run", "verify", "explain", "bench", "quantize"):
        words += ["--disable", disable]
    if words and words[0] in ("run", "verify", "explain", "bench") and "--backend" not in words:
        words += ["--backend", backend]
    environment = dict(os.environ)
    if backend == "cuda" and not GPU:
        environment["LD_LIBRARY_PATH"] = EMULATOR
    done = subprocess.run([FERRUMK, *words], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == status, f"{words}: status {done.returncode}, want {status}\n{done.stderr}"
    return done


def refusal(*arguments, status=2):
    """The one sentence that a refused command prints."""
    done = ferrumk(*arguments, status=status)
    assert done.stdout == "", done.stdout
    sentence, _, hint = done.stderr.partition("\n")
    assert not hint or hint.startswith("Try `ferrumk"), done.stderr
    return sentence


def normal(*shape):
    return np.random.default_rng(SEED + sum(shape)).standard_normal(shape).astype(np.float32)


def relative(got, want):
    return np.linalg.norm(got.astype(np.float64) - want) / np.linalg.norm(want)


def pack_nibbles(codes, axis):
    """Eight along `axis` in one int32, the first in the lowest bits."""
    codes = np.moveaxis(codes.astype(np.uint32), axis, 0)
    words = np.zeros((codes.shape[0] // 8, *codes.shape[1:]), np.uint32)
    for i in range(8):
        words |= codes[i::8] << np.uint32(4 * i)
    return np.ascontiguousarray(np.moveaxis(words, 0, axis)).view(np.int32)


def unpack_nibbles(words, axis):
    words = np.moveaxis(words.view(np.uint32), axis, 0)
    codes = np.zeros((words.shape[0] * 8, *words.shape[1:]), np.uint32)
    for i in range(8):
        codes[i::8] = (words >> np.uint32(4 * i)) & np.uint32(15)
    return np.moveaxis(codes, 0, axis)


def gptq_matrix(tensors, name):
    """W [n][k] of AutoGPTQ's first format, in float32 as the formula is written."""
    codes = unpack_nibbles(tensors[name + ".qweight"], 0).astype(np.int32)
    zeros = unpack_nibbles(tensors[name + ".qzeros"], 1).astype(np.int32) + 1 & 15
    group = tensors[name + ".g_idx"]
    scales = tensors[name + ".scales"].astype(np.float32)
    return (scales[group] * (codes - zeros[group]).astype(np.float32)).T


def to_gguf_order(matrix, heads):
    """Rows of q or k as GGUF's llama has them: the halves of each head in turn."""
    rows = matrix.reshape(heads, 2, -1, *matrix.shape[1:])
    return rows.swapaxes(1, 2).reshape(matrix.shape)


LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320,
         "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 128, "tie_word_embeddings": False}


def llama_tensors():
    tensors = {"model.embed_tokens.weight": normal(320, 256), "model.norm.weight": normal(256),
               "lm_head.weight": normal(320, 257)[:, :256].copy()}
    for layer in range(2):
        p = f"model.layers.{layer}."
        tensors |= {p + "input_layernorm.weight": normal(256), p + "post_attention_layernorm.weight": normal(256),
                    p + "self_attn.q_proj.weight": normal(256, 256), p + "self_attn.k_proj.weight": normal(128, 256),
                    p + "self_attn.v_proj.weight": normal(128, 256), p + "self_attn.o_proj.weight": normal(256, 256),
                    p + "mlp.gate_proj.weight": normal(512, 256), p + "mlp.up_proj.weight": normal(512, 256),
                    p + "mlp.down_proj.weight": normal(256, 512)}
    return tensors


class Files(unittest.TestCase):
    """Checkpoints of others, and projections on them."""
    backend = "cpu"

    @classmethod
    def setUpClass(cls):
        global backend
        backend = cls.backend
        cls.folder = tempfile.TemporaryDirectory()
        at = cls.folder.name
        cls.llama = os.path.join(at, "llama")
        os.mkdir(cls.llama)
        cls.tensors = llama_tensors()
        save_file(cls.tensors, os.path.join(cls.llama, "model.safetensors"))
        with open(os.path.join(cls.llama, "config.json"), "w") as file:
            json.dump(LLAMA, file)

        cls.gguf = os.path.join(at, "plain.gguf")
        writer = gguf.GGUFWriter(cls.gguf, "llama")
        writer.add_block_count(1)
        writer.add_embedding_length(512)
        writer.add_head_count(4)
        writer.add_array("tokenizer.ggml.tokens", ["<s>", "a", "\u00e4"])
        writer.add_string("general.name", "tiny")
        cls.f32, cls.f16 = normal(96, 512), normal(40, 512).astype(np.float16)
        cls.odd, cls.experts = normal(24, 100), normal(3, 48, 256)
        writer.add_tensor("blk.0.ffn_down.weight", cls.f32)
        writer.add_tensor("blk.0.attn_q.weight", cls.f16)
        writer.add_tensor("blk.0.odd.weight", cls.odd)
        writer.add_tensor("blk.0.attn_norm.weight", normal(512))
        writer.add_tensor("blk.0.ffn_up_exps.weight", cls.experts)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def at(self, name):
        return os.path.join(self.folder.name, name)

    def run_projection(self, path, tensor, rows, n, *options):
        self.write_rows(rows)
        ferrumk("run", path, "--tensor", tensor, "--input", self.at("in.f32"), "--m", len(rows), "--output",
                self.at("out.f32"), *options)
        return np.fromfile(self.at("out.f32"), "<f4").reshape(len(rows), n)

    def write_rows(self, rows):
        rows.astype("<f4").tofile(self.at("in.f32"))

    def dequantized(self, path, tensor, n, k, *options):
        """W bit for bit: the reference over unit rows, each product is one weight."""
        return self.run_projection(path, tensor, np.eye(k), n, "--backend", "reference", *options).T

    def check_projection(self, path, tensor, matrix, *options):
        want_of = matrix.astype(np.float64)
        for m in (1, 5, 33, 400) if self.backend == "cpu" else (1, 5, 70):
            rows = normal(m, matrix.shape[1])
            want = rows.astype(np.float64) @ want_of.T
            rounded = default_bound(want.size)
            for mode, bound in (([], rounded), (["--exact"], EXACT_BOUND), (["--threads", 1], rounded),
                                (["--backend", "reference"], EXACT_BOUND)):
                got = self.run_projection(path, tensor, rows, matrix.shape[0], *mode, *options)
                self.assertLessEqual(relative(got, want), bound, f"{tensor} m {m} {mode} seed {SEED}")

    def write_act_order(self):
        """A folder with one GPTQ matrix whose groups are in no order, W [n][k] in double, and its bias."""
        rng = np.random.default_rng(SEED)
        n, k, group = 64, 256, 32
        codes, zeros = rng.integers(0, 16, (k, n)), rng.integers(1, 16, (k // group, n))
        scales = (rng.random((k // group, n)) + 0.5).astype(np.float16)
        g_idx = rng.permutation(np.arange(k) // group).astype(np.int32)
        folder = self.at("act_order")
        os.mkdir(folder)
        name = "model.layers.0.mlp.down_proj"
        tensors = {name + ".qweight": pack_nibbles(codes, 0), name + ".qzeros": pack_nibbles(zeros - 1, 1),
                   name + ".scales": scales, name + ".g_idx": g_idx, name + ".bias": normal(n).astype(np.float16)}
        save_file(tensors, os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "quantize_config.json"), "w") as file:
            json.dump({"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": True, "sym": False}, file)
        matrix = (scales[g_idx].astype(np.float64) * (codes - zeros[g_idx])).T
        return folder, name, matrix, tensors[name + ".bias"].astype(np.float64)

    def check_act_order(self):
        folder, name, matrix, bias = self.write_act_order()
        rows = normal(50, matrix.shape[1])
        want = rows.astype(np.float64) @ matrix.T + bias
        for tensor in (name, name + ".qweight"):
            got = self.run_projection(folder, tensor, rows, len(matrix), "--exact")
            self.assertLessEqual(relative(got, want), EXACT_BOUND)
            self.assertLessEqual(relative(self.run_projection(folder, tensor, rows, len(matrix)), want), DEFAULT_BOUND)

    def check_verify(self):
        answer = json.loads(ferrumk("verify", self.gguf, "--json", "--m", "1,9").stdout)
        self.assertEqual((answer["checked"], answer["failed"]), (4, 0))
        for matrix in answer["matrices"]:
            self.assertTrue(matrix["good"])
            self.assertLessEqual(matrix["error_exact"], EXACT_BOUND)
        self.assertIn("4 matrices checked, 0 bad", ferrumk("verify", self.gguf, "--rows", 16).stdout)

    def check_bench(self):
        options = ["256x1024", "--m", "1,3", "--seconds", "0", "--copies", "2"]
        answer = json.loads(ferrumk("bench", *options, "--formats", "f16,q4_k,q6_k,gptq,gptq_asym", "--json").stdout)
        self.assertEqual(len(answer["lines"]), 10)
        for line in answer["lines"]:
            self.assertRegex(line["kernel"], f"^{self.backend}\\.")
            self.assertGreater(line["us_median"], 0)
            self.assertLessEqual(line["us_p10"], line["us_p90"])
        for word in ("f32", "bf16"):
            answer = json.loads(ferrumk("bench", *options, "--formats", "bf16", "--type", word, "--json").stdout)
            self.assertEqual((answer["type"], len(answer["lines"])), (word, 2))
        table = ferrumk("bench", *options, "--formats", "gptq", "--group-size", 64, "--csv").stdout
        rows = [line.split(",") for line in table.splitlines()]
        self.assertEqual(len(rows), 3)
        self.assertEqual(len({len(row) for row in rows}), 1)

    def check_explain(self):
        text = ferrumk("explain", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 4).stdout
        self.assertIn(self.backend + ".", text)
        answer = json.loads(ferrumk("explain", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 4, "--json").stdout)
        self.assertEqual(answer["text"], text)
        self.assertIn(self.backend + ".", ferrumk("explain", self.gguf, "--tensor", "blk.0.attn_q", "--m", 4, "--type",
                                                  "f16").stdout)


class Command(Files):
    # ---- the command line ----

    def test_help(self):
        verbs = ("devices", "inspect", "run", "verify", "explain", "bench", "quantize")
        overview = ferrumk("--help").stdout
        for verb in verbs:
            self.assertIn(verb, overview)
            done = subprocess.run([FERRUMK, verb, "--help"], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(f"Usage: ferrumk {verb}", done.stdout)
        self.assertRegex(ferrumk("--version").stdout, r"\d+\.\d+\.\d+")

    def test_wrong_command_lines(self):
        self.assertIn("Usage", ferrumk(status=2).stderr)
        self.assertIn("frobnicate", refusal("frobnicate"))
        self.assertIn("--frob", refusal("inspect", "--frob", self.gguf))
        self.assertIn("PATH", refusal("inspect"))
        self.assertIn("/nowhere.gguf", refusal("inspect", "/nowhere.gguf"))
        self.assertIn("twelve", refusal("explain", self.gguf, "--tensor", "x", "--m", "twelve"))
        self.assertIn("0", refusal("run", self.gguf, "--m", "0"))
        self.assertIn("--backend", refusal("devices", "--backend", "abacus"))
        self.assertIn("4096", refusal("bench", "4096"))
        self.assertIn("q5_0", refusal("bench", "64x256", "--formats", "q5_0"))
        self.assertIn("f8", refusal("bench", "64x256", "--type", "f8"))
        self.assertIn("q5_0", refusal("quantize", self.gguf, self.at("x.gguf"), "--format", "q5_0"))
        self.assertIn("--group-size", refusal("quantize", self.llama, self.at("x"), "--format", "gptq",
                                              "--group-size", "7"))

    def test_devices(self):
        answer = json.loads(ferrumk("devices", "--json").stdout)
        devices = {d["backend"]: d for d in answer["devices"]}
        self.assertTrue(devices["cpu"]["found"])
        self.assertGreaterEqual(devices["cpu"]["threads"], 1)
        for backend in ("cuda", "vulkan"):
            self.assertTrue(devices[backend]["found"] or devices[backend]["why"])
        self.assertIn("cpu", ferrumk("devices").stdout)

    # ---- inspect, explain, bench ----

    def test_inspect(self):
        answer = json.loads(ferrumk("inspect", self.gguf, "--json").stdout)
        self.assertEqual((answer["container"], answer["architecture"]), ("gguf", "llama"))
        entries = {e["name"]: e for e in answer["entries"]}
        down = entries["blk.0.ffn_down"]
        self.assertEqual((down["kind"], down["format"], down["n"], down["k"]), ("matrix", "F32", 96, 512))
        self.assertEqual(down["bytes"], 96 * 512 * 4)
        self.assertEqual(entries["blk.0.ffn_up_exps"]["experts"], 3)
        self.assertEqual(entries["blk.0.attn_norm"]["kind"], "vector")
        self.assertIn("blk.0.ffn_down", ferrumk("inspect", self.gguf).stdout)

    def test_explain(self):
        self.check_explain()

    def test_bench(self):
        self.check_bench()

    # ---- run ----

    def test_run_dense(self):
        self.check_projection(self.gguf, "blk.0.ffn_down", self.f32)
        self.check_projection(self.gguf, "blk.0.attn_q.weight", self.f16)
        self.check_projection(self.gguf, "blk.0.odd", self.odd)

    def test_run_experts(self):
        for expert in range(3):
            self.check_projection(self.gguf, "blk.0.ffn_up_exps.weight", self.experts[expert], "--expert", expert)

    def test_run_gptq_of_others(self):
        self.check_act_order()

    def test_run_refusals(self):
        self.write_rows(normal(3, 512))
        with open(self.at("kept"), "w") as file:
            file.write("as before")
        options = ["--input", self.at("in.f32"), "--output", self.at("kept")]
        sentence = refusal("run", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 2, *options)
        self.assertIn("6144", sentence)
        self.assertIn("4096", sentence)
        self.assertIn("nothing_here", refusal("run", self.gguf, "--tensor", "nothing_here", "--m", 3, *options, status=1))
        refusal("run", self.gguf, "--tensor", "blk.0.attn_norm", "--m", 3, *options, status=1)
        self.assertIn("3 experts", refusal("run", self.gguf, "--tensor", "blk.0.ffn_up_exps", "--m", 6, "--expert", 3,
                                           *options))
        refusal("run", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 3, "--input", "/nowhere", "--output",
                self.at("kept"))
        refusal("run", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 3, "--input", self.at("in.f32"), "--output",
                "/nowhere/out")
        with open(self.at("kept")) as file:
            self.assertEqual(file.read(), "as before")
        self.assertEqual([f for f in os.listdir(self.folder.name) if f.startswith("kept.")], [])

    # ---- verify ----

    def test_verify(self):
        self.check_verify()

    def test_verify_of_unequal_rows(self):
        """One row is all of the output's norm; its few results scatter, which is no fault of the kernels."""
        codes = np.random.default_rng(11).integers(0, 16, (256, 1024))
        scales = np.full((1, 1024), 0.01, np.float16)
        scales[0, 40] = 1000
        path = self.at("unequal.safetensors")
        save_file({"a.qweight": pack_nibbles(codes, 0), "a.scales": scales, "a.bias": normal(1024).astype(np.float16),
                   "a.qzeros": np.full((1, 128), 0x77777777, np.int32)}, path)
        for seed in range(6):
            answer = json.loads(ferrumk("verify", path, "--json", "--seed", seed).stdout)
            self.assertEqual((answer["checked"], answer["failed"]), (1, 0))

    def test_verify_reports_nan(self):
        matrix = normal(32, 256)
        matrix[5, 7] = np.nan
        path = self.at("nan.safetensors")
        save_file({"good.weight": normal(32, 256), "bad.weight": matrix}, path)
        answer = json.loads(ferrumk("verify", path, "--json", status=1).stdout)
        bad = {m["name"]: m["weights_not_finite"] for m in answer["matrices"]}
        self.assertEqual(bad, {"good": 0, "bad": 1})

    def test_damage_is_named(self):
        """A matrix that is refused is named, and the others are still looked at."""
        codes = np.zeros((64, 64), np.uint32)
        wrong = np.full((1, 8), 0x77777779, np.int32)  # one 9 among 7s: neither convention of symmetric files
        right = np.full((1, 8), 0x77777777, np.int32)
        tensors = {}
        for name, zeros in (("a", right), ("b", wrong), ("c", right)):
            tensors[name + ".qweight"] = pack_nibbles(codes, 0)
            tensors[name + ".scales"] = np.ones((1, 64), np.float16)
            tensors[name + ".qzeros"] = zeros
        tensors["d.qweight"] = pack_nibbles(codes, 0)
        folder = self.at("damaged")
        os.makedirs(folder)
        save_file(tensors, os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "quantize_config.json"), "w") as file:
            json.dump({"quant_method": "gptq", "bits": 4, "group_size": -1, "sym": True}, file)
        answer = json.loads(ferrumk("verify", folder, "--json", status=1).stdout)
        found = {matrix["name"]: matrix for matrix in answer["matrices"]}
        self.assertEqual([name for name in found if found[name]["good"]], ["a", "c"])
        self.assertIn("qzeros", found["b"]["error"])
        self.assertIn("scales", found["d"]["error"])
        answer = json.loads(ferrumk("inspect", folder, "--json").stdout)
        entries = {entry["name"]: entry for entry in answer["entries"]}
        self.assertIn("scales", entries["d"]["error"])
        self.assertNotIn("error", entries["a"])

    # ---- quantize ----

    def read_back(self, path):
        """Types, and the matrices as gguf's own dequantizer has them."""
        reader = gguf.GGUFReader(path)
        tensors = {t.name: t for t in reader.tensors}
        return reader, tensors, {n: gguf.quants.dequantize(t.data, t.tensor_type) for n, t in tensors.items()}

    def test_quantize_gguf(self):
        for word, kind, file_type in (("q4_k", "Q4_K", 14), ("q6_k", "Q6_K", 18)):
            path = self.at(word + ".gguf")
            ferrumk("quantize", self.gguf, path, "--format", word)
            reader, tensors, values = self.read_back(path)
            self.assertEqual(reader.get_field("general.file_type").contents(), file_type)
            self.assertEqual(reader.get_field("general.name").contents(), "tiny")
            self.assertEqual(reader.get_field("tokenizer.ggml.tokens").contents(), ["<s>", "a", "\u00e4"])
            types = {n: t.tensor_type.name for n, t in tensors.items()}
            self.assertEqual(types, {"blk.0.ffn_down.weight": kind, "blk.0.attn_q.weight": kind,
                                     "blk.0.odd.weight": "F16", "blk.0.attn_norm.weight": "F32",
                                     "blk.0.ffn_up_exps.weight": kind})
            np.testing.assert_array_equal(values["blk.0.attn_norm.weight"], normal(512))
            np.testing.assert_array_equal(values["blk.0.odd.weight"], self.odd.astype(np.float16))
            for name, source in (("blk.0.ffn_down", self.f32), ("blk.0.attn_q", self.f16)):
                ours = self.dequantized(path, name, *source.shape)
                np.testing.assert_array_equal(ours, values[name + ".weight"])
                self.assertLess(relative(ours, source.astype(np.float64)), 0.1 if word == "q4_k" else 0.03)
            for expert in range(3):
                ours = self.dequantized(path, "blk.0.ffn_up_exps", 48, 256, "--expert", expert)
                np.testing.assert_array_equal(ours, values["blk.0.ffn_up_exps.weight"][expert])
            ferrumk("verify", path)
            self.check_projection(path, "blk.0.ffn_down.weight", values["blk.0.ffn_down.weight"])

    def test_quantize_llama_to_q4_k_m(self):
        path = self.at("llama.gguf")
        ferrumk("quantize", self.llama, path, "--format", "q4_k_m")
        reader, tensors, values = self.read_back(path)
        self.assertEqual(reader.get_field("general.architecture").contents(), "llama")
        self.assertEqual(reader.get_field("general.file_type").contents(), 15)
        for key, value in (("block_count", 2), ("embedding_length", 256), ("feed_forward_length", 512),
                           ("attention.head_count", 4), ("attention.head_count_kv", 2), ("rope.dimension_count", 64)):
            self.assertEqual(reader.get_field("llama." + key).contents(), value)
        six = {n for n, t in tensors.items() if t.tensor_type.name == "Q6_K"}
        self.assertEqual(six, {"output.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight"})
        p = "model.layers.1."
        for theirs, ours, heads in ((p + "self_attn.q_proj", "blk.1.attn_q", 4),
                                    (p + "self_attn.k_proj", "blk.1.attn_k", 2),
                                    (p + "self_attn.v_proj", "blk.1.attn_v", 0),
                                    (p + "mlp.down_proj", "blk.1.ffn_down", 0), ("lm_head", "output", 0)):
            source = self.tensors[theirs + ".weight"]
            want = to_gguf_order(source, heads) if heads else source
            self.assertLess(relative(values[ours + ".weight"], want.astype(np.float64)), 0.1, ours)
            np.testing.assert_array_equal(self.dequantized(path, ours, *source.shape), values[ours + ".weight"])
        ferrumk("verify", path, "--m", 1)

    def test_quantize_gptq(self):
        for group, more in ((128, []), (-1, []), (32, ["--asymmetric"])):
            folder = self.at(f"gptq{group}")
            ferrumk("quantize", self.llama, folder, "--format", "gptq", "--group-size", group, *more)
            tensors = load_file(os.path.join(folder, "model.safetensors"))
            with open(os.path.join(folder, "quantize_config.json")) as file:
                quantization = json.load(file)
            with open(os.path.join(folder, "config.json")) as file:
                config = json.load(file)
            self.assertEqual(config.pop("quantization_config"), quantization)
            self.assertEqual(config, LLAMA)
            self.assertEqual((quantization["bits"], quantization["group_size"], quantization["sym"]),
                             (4, group, not more))
            name = "model.layers.0.mlp.down_proj"
            self.assertEqual(tensors[name + ".qweight"].shape, (64, 256))
            ours, theirs = self.dequantized(folder, name, 256, 512), gptq_matrix(tensors, name)
            np.testing.assert_array_equal(ours, theirs)
            self.assertLess(relative(ours, self.tensors[name + ".weight"].astype(np.float64)), 0.2)
            np.testing.assert_array_equal(tensors["lm_head.weight"], self.tensors["lm_head.weight"].astype(np.float16))
            np.testing.assert_array_equal(tensors["model.norm.weight"],
                                          self.tensors["model.norm.weight"].astype(np.float16))
            entries = {e["name"]: e for e in json.loads(ferrumk("inspect", folder, "--json").stdout)["entries"]}
            self.assertEqual((entries[name]["format"], entries[name]["symmetric"]), ("GPTQ", not more))
            ferrumk("verify", folder, "--m", 1)

    def test_quantize_gguf_to_gptq(self):
        """Names and the order of q's rows go back to Hugging Face's."""
        path, folder = self.at("hf_order.gguf"), self.at("from_gguf")
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_block_count(1)
        writer.add_embedding_length(256)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_tensor("blk.0.attn_q.weight", to_gguf_order(normal(256, 256), 4))
        writer.add_tensor("token_embd.weight", normal(320, 256))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        ferrumk("quantize", path, folder, "--format", "gptq")
        tensors = load_file(os.path.join(folder, "model.safetensors"))
        matrix = gptq_matrix(tensors, "model.layers.0.self_attn.q_proj")
        self.assertLess(relative(matrix, normal(256, 256).astype(np.float64)), 0.2)
        with open(os.path.join(folder, "config.json")) as file:
            config = json.load(file)
        self.assertEqual((config["model_type"], config["num_key_value_heads"], config["vocab_size"]), ("llama", 2, 320))

    def test_quantize_biases(self):
        """A bias is a tensor of its own again, in either container; Qwen2's rows stay in order."""
        folder = self.at("qwen2")
        os.mkdir(folder)
        name = "model.layers.0.self_attn.q_proj"
        matrix, bias = normal(128, 256), normal(128)
        save_file({name + ".weight": matrix, name + ".bias": bias, "model.norm.weight": normal(256)},
                  os.path.join(folder, "model.safetensors"))
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump({"model_type": "qwen2", "num_attention_heads": 2, "hidden_size": 256}, file)
        ferrumk("quantize", folder, self.at("qwen2.gguf"), "--format", "q6_k")
        _, tensors, values = self.read_back(self.at("qwen2.gguf"))
        self.assertEqual(set(tensors), {"blk.0.attn_q.weight", "blk.0.attn_q.bias", "output_norm.weight"})
        np.testing.assert_array_equal(values["blk.0.attn_q.bias"], bias)
        self.assertLess(relative(values["blk.0.attn_q.weight"], matrix.astype(np.float64)), 0.03)
        ferrumk("quantize", folder, self.at("qwen2_gptq"), "--format", "gptq")
        tensors = load_file(os.path.join(self.at("qwen2_gptq"), "model.safetensors"))
        np.testing.assert_array_equal(tensors[name + ".bias"], bias.astype(np.float16))
        rows = normal(64, 256)
        want = rows.astype(np.float64) @ gptq_matrix(tensors, name).T.astype(np.float64) + bias.astype(np.float16)
        got = self.run_projection(self.at("qwen2_gptq"), name, rows, 128, "--exact")
        self.assertLessEqual(relative(got, want), EXACT_BOUND)

    def test_quantize_split(self):
        """The key-values of a split set lie in its first file, whichever is named."""
        path = self.at("split.gguf")
        writer = gguf.GGUFWriter(path, "llama", split_max_tensors=2)
        writer.add_string("general.name", "in pieces")
        for i in range(3):
            writer.add_tensor(f"blk.{i}.ffn_down.weight", normal(16, 256))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        ferrumk("quantize", self.at("split-00002-of-00002.gguf"), self.at("whole.gguf"), "--format", "q4_k")
        reader, tensors, _ = self.read_back(self.at("whole.gguf"))
        self.assertEqual(len(tensors), 3)
        self.assertEqual(reader.get_field("general.name").contents(), "in pieces")
        self.assertIsNone(reader.get_field("split.count"))

    def test_quantize_refusals(self):
        path = self.at("twice.gguf")
        ferrumk("quantize", self.gguf, path, "--format", "q4_k")
        self.assertIn("Q4_K", refusal("quantize", path, self.at("no.gguf"), "--format", "q6_k", status=1))
        matrix = normal(8, 256)
        matrix[0, 0] = np.inf
        save_file({"a.weight": matrix}, self.at("inf.safetensors"))
        refusal("quantize", self.at("inf.safetensors"), self.at("no.gguf"), "--format", "q4_k", status=1)
        self.assertFalse(any(f.startswith("no.gguf") for f in os.listdir(self.folder.name)))


@unittest.skipUnless(EMULATOR or GPU, "neither tests/emulator was built nor is a GPU named")
class Cuda(Files):
    """The same on a GPU, whose memory is not the host's."""
    backend = "cuda"

    def test_devices(self):
        answer = json.loads(ferrumk("devices", "--json").stdout)
        devices = [d for d in answer["devices"] if d["backend"] == "cuda"]
        self.assertEqual([d["device"] for d in devices], list(range(len(devices))))
        for device in devices:
            self.assertTrue(device["found"] and device["name"])
            self.assertGreater(device["memory"], 1 << 30)
            self.assertIn("features", device)
        self.assertIn(devices[0]["name"], ferrumk("devices").stdout)

    def test_auto(self):
        self.assertIn("cuda.", ferrumk("explain", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 4, "--backend",
                                       "auto").stdout)

    def test_refusals(self):
        sentence = refusal("explain", self.gguf, "--tensor", "blk.0.ffn_down", "--m", 4, "--device", 999, status=1)
        self.assertIn("999", sentence)

    def test_run(self):
        self.check_projection(self.gguf, "blk.0.ffn_down", self.f32)
        self.check_projection(self.gguf, "blk.0.attn_q.weight", self.f16)
        self.check_projection(self.gguf, "blk.0.odd", self.odd)
        self.check_projection(self.gguf, "blk.0.ffn_up_exps.weight", self.experts[2], "--expert", 2)

    def test_run_act_order(self):
        self.check_act_order()

    def test_run_quantized(self):
        for word in ("q4_k", "q6_k"):
            path = self.at(word + ".gguf")
            ferrumk("quantize", self.gguf, path, "--format", word)
            matrix = self.dequantized(path, "blk.0.ffn_down", *self.f32.shape)
            self.check_projection(path, "blk.0.ffn_down", matrix)
            ferrumk("verify", path)

    def test_verify(self):
        self.check_verify()
        folder = self.at("gptq")
        ferrumk("quantize", self.llama, folder, "--format", "gptq")
        ferrumk("verify", folder, "--m", "1,40")

    def test_explain(self):
        self.check_explain()

    def test_bench(self):
        self.check_bench()


@unittest.skipUnless(VULKAN, "FERRUMK_TEST_VULKAN is not 1")
class Vulkan(Files):
    """The same on Vulkan: on Mesa's lavapipe where there is no GPU."""
    backend = "vulkan"

    def test_devices(self):
        answer = json.loads(ferrumk("devices", "--json").stdout)
        devices = [d for d in answer["devices"] if d["backend"] == "vulkan"]
        self.assertEqual([d["device"] for d in devices], list(range(len(devices))))
        self.assertTrue(all(d["found"] and d["name"] for d in devices))

    def test_run(self):
        self.check_projection(self.gguf, "blk.0.ffn_down", self.f32)
        self.check_projection(self.gguf, "blk.0.odd", self.odd)
        self.check_projection(self.gguf, "blk.0.ffn_up_exps.weight", self.experts[2], "--expert", 2)

    def test_run_act_order(self):
        self.check_act_order()

    def test_verify(self):
        path = self.at("q4_k.gguf")
        ferrumk("quantize", self.gguf, path, "--format", "q4_k")
        ferrumk("verify", path)

    def test_explain(self):
        self.check_explain()

    def test_bench(self):
        self.check_bench()


if __name__ == "__main__":
    if not EMULATOR and not GPU:  # as cmocka says it, so that scripts/test counts it
        print("[  SKIPPED ] test_command.Cuda: neither tests/emulator was built nor is a GPU named", flush=True)
    unittest.main(verbosity=1)
