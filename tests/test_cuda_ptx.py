"""PTX translated for the host behaves as PTX: the results of instructions, and what is rejected. The engine's
own PTX runs the tests in tests/test_cuda_*.py with FASTOPT_TEST_DEVICE=ptx."""

from __future__ import annotations

import ctypes
import platform
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("fcntl", reason="the shim is for POSIX systems")

from cuda_shim import nvcc, ptx, translated
from cuda_shim.build import CACHE, build, digest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="float16 is converted by an x86 instruction"
)

ONES = 2**64 - 1


def f32(x: float) -> int:
    return struct.unpack("I", struct.pack("f", x))[0]


def f64(x: float) -> int:
    return struct.unpack("Q", struct.pack("d", x))[0]


NAN = f32(float("nan"))

# An instruction that writes register 9, the contents of registers 1 to 3 before it, and of register 9 after
# it, all as bits.
CASES = [
    ("add.s32 %r9, %r1, %r2", (2**31 - 1, 1), 2**31),
    ("sub.s64 %rd9, %rd1, %rd2", (0, 1), ONES),
    ("mul.lo.s32 %r9, %r1, %r2", (0x10001, 0x10001), 0x20001),
    ("mul.hi.u64 %rd9, %rd1, %rd2", (ONES, ONES), ONES - 1),
    ("mul.hi.s64 %rd9, %rd1, %rd2", (ONES, 1), ONES),
    ("mul.wide.s32 %rd9, %r1, %r2", (2**32 - 1, 2), ONES - 1),
    ("mul.wide.u32 %rd9, %r1, -1", (2,), 2 * (2**32 - 1)),
    ("mul.wide.u16 %r9, %rs1, %rs2", (0xFFFF, 0xFFFF), 0xFFFE0001),
    ("mad.lo.s32 %r9, %r1, %r2, %r3", (3, 4, 2**32 - 1), 11),
    ("div.s32 %r9, %r1, %r2", (2**32 - 7, 2), 2**32 - 3),
    ("rem.s32 %r9, %r1, %r2", (2**32 - 7, 2), 2**32 - 1),
    ("div.u32 %r9, %r1, %r2", (2**32 - 7, 2), 2**31 - 4),
    ("min.s64 %rd9, %rd1, %rd2", (ONES, 1), ONES),
    ("max.u32 %r9, %r1, %r2", (2**32 - 1, 1), 2**32 - 1),
    ("neg.s64 %rd9, %rd1", (1,), ONES),
    (
        "red.release.gpu.global.add.u32 [%rd4], %r2;\n\tld.acquire.gpu.global.u32 %r9, [%rd4]",
        (5, 7),
        12,
    ),
    # A block's shared memory through its address in the cluster, and what it holds.
    (
        "st.shared.u32 [%r1+4], %r3;\n\tmapa.shared::cluster.u32 %r8, %r1, %r2;\n\t"
        "ld.shared::cluster.u32 %r9, [%r8+4]",
        (16, 0, 7),
        7,
    ),
    (
        "st.shared.u32 [%r1], %r3;\n\tmapa.shared::cluster.u32 %r8, %r1, %r2;\n\t"
        "ld.shared::cluster.u32 %r9, [%r8]",
        (32, 7, 7),
        0,
    ),
    ("vote.sync.ballot.b32 %r8, %p1, 1;\n\tpopc.b32 %r9, %r8", (1,), 1),
    ("and.pred %p9, %p1, %p2", (1, 0), 0),
    ("not.pred %p9, %p1", (0,), 1),
    ("not.b32 %r9, %r1", (1,), 2**32 - 2),
    ("xor.b16 %rs9, %rs1, %rs2", (0xF0F0, 0xFFFF), 0x0F0F),
    # A shift by the width or more leaves zero, or copies of the sign.
    ("shl.b32 %r9, %r1, %r2", (1, 31), 2**31),
    ("shl.b32 %r9, %r1, %r2", (1, 32), 0),
    ("shr.u64 %rd9, %rd1, %r2", (ONES, 63), 1),
    ("shr.u32 %r9, %r1, %r2", (2**32 - 1, 2**32 - 1), 0),
    ("shr.s32 %r9, %r1, %r2", (2**31, 99), 2**32 - 1),
    ("shr.u16 %rs9, %rs1, 8", (0xABCD,), 0xAB),
    ("bfi.b32 %r9, %r1, %r2, 8, 4", (0xFF, 0), 0xF00),
    ("bfi.b64 %rd9, %rd1, %rd2, 32, 32", (5, ONES), 5 << 32 | 2**32 - 1),
    ("prmt.b32 %r9, %r1, %r2, 0x7531", (0x33221100, 0x77665544), 0x77553311),
    ("prmt.b32 %r9, %r1, %r2, 0x9B80", (0x80007F80, 0), 0x00FFFF80),
    ("selp.b32 %r9, %r1, %r2, %p3", (5, 6, 0), 6),
    ("setp.lt.s32 %p9, %r1, %r2", (2**32 - 1, 0), 1),
    ("setp.lt.u32 %p9, %r1, %r2", (2**32 - 1, 0), 0),
    # Comparisons with NaN are false, or true with the suffix u.
    ("setp.ne.f32 %p9, %f1, %f2", (NAN, NAN), 0),
    ("setp.neu.f32 %p9, %f1, %f2", (NAN, NAN), 1),
    ("setp.equ.f32 %p9, %f1, %f2", (NAN, 0), 1),
    ("setp.leu.f64 %p9, %fd1, %fd2", (f64(float("nan")), 0), 1),
    ("setp.le.f64 %p9, %fd1, %fd2", (f64(-0.0), 0), 1),
    ("setp.geu.f32 %p9, %f1, %f2", (f32(-1), 0), 0),
    ("setp.nan.f32 %p9, %f1, %f2", (0, NAN), 1),
    ("setp.num.f32 %p9, %f1, %f2", (0, NAN), 0),
    ("max.f32 %f9, %f1, %f2", (NAN, f32(-3)), f32(-3)),
    ("min.f32 %f9, %f1, %f2", (f32(2), NAN), f32(2)),
    ("add.rn.f32 %f9, %f1, %f2", (f32(1), f32(2**-24)), f32(1)),
    ("mul.rn.f32 %f9, %f1, %f2", (f32(2.0**-126), f32(0.5)), 2**22),  # not flushed to zero
    ("div.rn.f32 %f9, %f1, 0f40400000", (f32(1),), 0x3EAAAAAB),
    ("sqrt.rn.f64 %fd9, %fd1", (f64(2.0),), 0x3FF6A09E667F3BCD),
    ("rcp.rn.f64 %fd9, %fd1", (f64(3.0),), 0x3FD5555555555555),
    ("neg.f32 %f9, %f1", (0,), 2**31),
    ("abs.f64 %fd9, %fd1", (f64(-2.0),), f64(2.0)),
    # float16 keeps ten bits after the leading one; ties round to even.
    ("cvt.rn.f16.f32 %rs9, %f1", (f32(1 + 2.0**-11),), 0x3C00),
    ("cvt.rn.f16.f32 %rs9, %f1", (f32(1 + 3 * 2.0**-11),), 0x3C02),
    ("cvt.rn.f16.f32 %rs9, %f1", (f32(65520),), 0x7C00),
    ("cvt.rn.f16.f32 %rs9, %f1", (f32(2.0**-24),), 1),
    ("cvt.rn.bf16.f32 %rs9, %f1", (f32(1 + 2.0**-8),), 0x3F80),
    ("cvt.rn.bf16.f32 %rs9, %f1", (f32(1 + 3 * 2.0**-8),), 0x3F82),
    ("cvt.rn.bf16.f32 %rs9, %f1", (f32(3.4e38),), 0x7F80),
    ("cvt.rn.bf16.f32 %rs9, %f1", (f32(-(2.0**-133)),), 0x8001),
    ("cvt.rn.bf16.f32 %rs9, %f1", (NAN + 1,), 0x7FFF),
    ("cvt.rn.f16.f32 %rs9, %f1", (NAN + 1,), 0x7FFF),
    ("sub.rn.f32 %f9, %f1, %f1", (f32(float("inf")),), 0x7FFFFFFF),
    ("mul.rn.f64 %fd9, %fd1, %fd2", (f64(float("nan")), 1), 2**63 - 1),
    ("cvt.f32.f16 %f9, %rs1", (1,), f32(2.0**-24)),
    ("cvt.rn.f32.f64 %f9, %fd1", (f64(0.1),), f32(0.1)),
    ("cvt.rn.f64.s64 %fd9, %rd1", (ONES,), f64(-1.0)),
    ("cvt.s64.s32 %rd9, %r1", (2**32 - 1,), ONES),
    ("cvt.u64.u32 %rd9, %r1", (2**32 - 1,), 2**32 - 1),
    ("mov.b64 %rd9, {%r1, %r2}", (1, 2), 2 << 32 | 1),
    ("mov.b64 {%r8, %r9}, %fd1", (f64(1.0),), 0x3FF00000),
    ("mov.b32 %r9, {%rs1, %rs2}", (1, 2), 0x20001),
    ("mov.b32 %r9, %f1", (NAN,), NAN),
    ("ld.global.v2.u32 {%r8, %r9}, [%rd4+8]", (1, 7 << 32 | 5), 7),
    ("ld.global.s8 %rs9, [%rd4+1]", (0x8100,), 0xFF81),
    ("@%p2 bra $L__END", (1, 1), 0),
    ("@!%p2 mov.u32 %r9, %r1", (1, 1), 0),
]

# Reads three words at the first address into every kind of register, and writes register 9 of each kind to
# the second.
KERNEL = """
.entry probe_{i}(
	.param .u64 probe_{i}_param_0,
	.param .u64 probe_{i}_param_1
)
{{
	.reg .pred 	%p<10>;
	.reg .b16 	%rs<10>;
	.reg .b32 	%r<20>;
	.reg .f32 	%f<10>;
	.reg .b64 	%rd<20>;
	.reg .f64 	%fd<10>;

	ld.param.u64 	%rd4, [probe_{i}_param_0];
	ld.param.u64 	%rd5, [probe_{i}_param_1];
	ld.global.u64 	%rd1, [%rd4];
	ld.global.u64 	%rd2, [%rd4+8];
	ld.global.u64 	%rd3, [%rd4+16];
	cvt.u32.u64 	%r1, %rd1;
	cvt.u32.u64 	%r2, %rd2;
	cvt.u32.u64 	%r3, %rd3;
	cvt.u16.u32 	%rs1, %r1;
	cvt.u16.u32 	%rs2, %r2;
	mov.b32 	%f1, %r1;
	mov.b32 	%f2, %r2;
	mov.b64 	%fd1, %rd1;
	mov.b64 	%fd2, %rd2;
	setp.ne.u32 	%p1, %r1, 0;
	setp.ne.u32 	%p2, %r2, 0;
	setp.ne.u32 	%p3, %r3, 0;
	mov.u64 	%rd9, 0;
	mov.u32 	%r9, 0;
	mov.u16 	%rs9, 0;
	mov.f32 	%f9, 0f00000000;
	mov.f64 	%fd9, 0d0000000000000000;
	mov.pred 	%p9, 0;
	{instruction};
	cvt.u64.u16 	%rd10, %rs9;
	or.b64  	%rd9, %rd9, %rd10;
	cvt.u64.u32 	%rd11, %r9;
	or.b64  	%rd9, %rd9, %rd11;
	mov.b32 	%r10, %f9;
	cvt.u64.u32 	%rd12, %r10;
	or.b64  	%rd9, %rd9, %rd12;
	mov.b64 	%rd13, %fd9;
	or.b64  	%rd9, %rd9, %rd13;
	selp.u64 	%rd14, 1, 0, %p9;
	or.b64  	%rd9, %rd9, %rd14;

$L__END:
	st.global.u64 	[%rd5], %rd9;
	ret;

}}
"""


@cache
def probes(instructions: tuple[str, ...]) -> ctypes.CDLL:
    text = "".join(KERNEL.format(i=i, instruction=code) for i, code in enumerate(instructions))
    CACHE.mkdir(mode=0o700, exist_ok=True)
    source = CACHE / f"probes-{digest(text)}.cpp"
    source.write_text(ptx.translate(text, "probes"))
    return ctypes.CDLL(str(build(translated.CXX_FLAGS, sources=[source])))


def device_words(lib: ctypes.CDLL, *words: int) -> ctypes.c_void_p:
    place = ctypes.c_void_p()
    assert lib.cudaMalloc(ctypes.byref(place), ctypes.c_size_t(8 * len(words))) == 0
    (ctypes.c_uint64 * len(words)).from_address(place.value)[:] = words
    return place


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
def test_instruction(case: tuple[str, tuple[int, ...], int]) -> None:
    _, given, want = case
    lib = probes(tuple(code for code, *_ in CASES))
    entry = (translated.Entry * len(CASES)).in_dll(lib, "probes")[CASES.index(case)]
    source, target = device_words(lib, *given, *[0] * (3 - len(given))), device_words(lib, ONES)
    addresses = (ctypes.c_void_p * 2)(*(ctypes.addressof(p) for p in (source, target)))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(entry.function)(ctypes.addressof(addresses))
    assert ctypes.c_uint64.from_address(target.value).value == want
    for place in (source, target):
        lib.cudaFree(place)


# ---- what a device traps or cannot run ----

TRAPS = {
    "ld.global.v2.u32 {%r8, %r9}, [%rd4+4]": "misaligned",
    "ld.global.u64 %rd9, [%rd4+24]": "no memory of the device",
    "ld.global.v4.u32 {%r6, %r7, %r8, %r9}, [%rd4+16]": "no memory of the device",
    "st.global.u32 [%rd4+-4], %r1": "no memory of the device",
}
ALONE = """
import sys
sys.path[:0] = {path!r}
from test_cuda_ptx import TRAPS, test_instruction
import test_cuda_ptx
case = ({code!r}, (1, 2, 3), 0)
test_cuda_ptx.CASES[:] = [case]
test_instruction(case)
"""


@pytest.mark.parametrize("code", TRAPS)
def test_invalid_addresses_abort(code: str) -> None:
    program = ALONE.format(path=[str(Path(__file__).parent), *sys.path], code=code)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode < 0, "it must abort"
    assert TRAPS[code] in done.stderr


@pytest.mark.parametrize(
    "line", ["fma.rn.f32 %f1, %f1, %f1, %f1;", "ex2.approx.f32 %f1, %f2;", "bar.red.and;", "nonsense"]
)
def test_unknown_instructions_are_rejected(line: str) -> None:
    with pytest.raises(ValueError, match="not known here"):
        ptx.translate(KERNEL.format(i=0, instruction=line.rstrip(";")), "probes")


@pytest.mark.slow
@pytest.mark.skipif(nvcc.NVCC is None, reason="nvcc is not on the path")
@pytest.mark.parametrize(
    ("flag", "instruction"),
    [
        ("-fmad=true", r"mul\.f32"),
        ("-ftz=true", r"\.ftz"),
        ("-prec-div=false", r"div\.full"),
        ("-prec-sqrt=false", r"sqrt\.approx"),
    ],
)
def test_ptx_of_other_arithmetic_flags_is_rejected(flag: str, instruction: str) -> None:
    """This is what nvcc would generate if the build's flags were lost."""
    with pytest.raises(RuntimeError, match=f"not known here: .*{instruction}"):
        translated.translated(translated.CSRC / "cuda" / "step_float32.cu", (flag,))
