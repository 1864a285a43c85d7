"""Analysis of machine code in the benchmarks: the path through a kernel, and the instructions counted on
it."""

from __future__ import annotations

import math
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("rich", reason="the benchmarks need it")
pytest.importorskip("psutil", reason="the benchmarks need it")

sys.path.append(str(ROOT))

from bench import cubin, floors, passes, pipes, sass  # noqa: E402

MISSING = [name for name in ("nvcc", "nvdisasm") if not cubin.tool(name)]
needs_tools = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not on the path: {', '.join(MISSING)}"),
]


def test_shipped_code_since_hopper_is_compiled_from_the_same_ptx():
    """With older PTX, launches would have neither overlap nor clusters."""
    text = (cubin.CUDA / "CMakeLists.txt").read_text()
    assert "set(codes sm_90)" in text
    assert f"arch=compute_{cubin.PTX},code=[${{codes}},compute_{cubin.PTX}]" in text


# A loop with a square root, which has a fast path and a subroutine; a loop over single elements; and a branch
# past both.
KERNEL = """
	.section	.text.kernel,"ax",@progbits
.text.kernel:
        /*0000*/                   S2R R0, SR_TID.X ;
        /*0010*/               @P0 BRA `(.L_x_9) ;
.L_x_1:
        /*0020*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0030*/                   MUFU.RSQ R9, R4 ;
        /*0040*/              @!P1 BRA `(.L_x_2) ;
        /*0050*/                   MOV R5, 0x70 ;
        /*0060*/                   CALL.REL.NOINC `($root_slowpath) ;
        /*0070*/                   BRA `(.L_x_3) ;
.L_x_2:
        /*0080*/                   FMUL R8, R4, R9 ;
        /*0090*/                   FFMA R8, R8, R9, R4 ;
.L_x_3:
        /*00a0*/                   STG.E.128.STRONG.GPU desc[UR4][R2.64], R4 ;
        /*00b0*/               @P2 FADD R4, R4, R9 ;
        /*00c0*/                   ISETP.GE.AND P3, PT, R3, R2, PT ;
        /*00d0*/               @P3 BRA `(.L_x_1) ;
.L_x_4:
        /*00e0*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*00f0*/                   F2F.F64.F32 R6, R4 ;
        /*0100*/                   STG.E desc[UR4][R2.64], R4 ;
        /*0110*/                   BRA P4, `(.L_x_4) ;
.L_x_9:
        /*0120*/                   EXIT ;
"""


@pytest.fixture
def kernel() -> sass.Kernel:
    (only,) = sass.kernels(KERNEL)
    return only


def opcodes(path: list[sass.Instruction]) -> list[str]:
    return [one.opcode.partition(".")[0] for one in path]


def test_the_path_around_a_loop_enters_no_subroutine(kernel):
    path = kernel.path({passes.LOAD: 1, passes.STORE: 1})
    assert opcodes(path) == ["LDG", "MUFU", "BRA", "FMUL", "FFMA", "STG", "FADD", "ISETP", "BRA"]
    assert path[6].guard == "P2"


def test_required_instructions_select_the_loop(kernel):
    assert opcodes(kernel.path({"LDG": 1, "F2F": 1})) == ["LDG", "F2F", "STG", "BRA"]
    assert opcodes(kernel.path({})) == ["LDG", "F2F", "STG", "BRA"]  # the shortest of all
    assert opcodes(kernel.path({"STG": 1}, forbidden="F2F|CALL"))[-2:] == ["ISETP", "BRA"]


def test_without_a_matching_loop_the_path_is_the_whole_kernel(kernel):
    whole = opcodes(kernel.path({"S2R": 1}))
    assert whole == ["S2R", "BRA", "EXIT"]
    assert opcodes(kernel.path({"S2R": 1, "F2F": 1}))[-5:] == ["LDG", "F2F", "STG", "BRA", "EXIT"]
    with pytest.raises(LookupError, match=r"kernel: no path has .'DADD': 1"):
        kernel.path({"DADD": 1})


def test_issue_counts_are_by_pipe_and_width(kernel):
    counts = pipes.issue_counts(kernel.path({passes.LOAD: 1, passes.STORE: 1}))
    assert counts == {"issue": 9, "LSU": 8, "XU": 1, "FP32": 3, "ALU": 1}
    assert pipes.cycles(counts)["XU"] == 1 / 16


def test_time_is_the_larger_floor_and_grows_with_too_few_bytes_in_flight():
    device = floors.Device("a card", copy=1e12, clock=1e9, processors=100)
    one = passes.Pass("f", "k", threads=256, elements=4, reads=4, writes=4, required={})
    light = floors.Floor(one, Counter(issue=40), registers=32, shared=0, subroutines=0)
    assert light.warps == 64
    assert light.time(device) == light.bytes_time(device) == 8e-12
    heavy = floors.Floor(one, Counter(issue=5120), 32, 0, 0)
    assert heavy.time(device) == pytest.approx(1e-10)  # 10 cycles per element, over 100 processors
    assert floors.share([light, heavy], device) == pytest.approx(16e-12 / 108e-12)
    few = floors.Floor(
        one, light.issue_counts, registers=32, shared=200 << 10, subroutines=0
    )  # one block
    assert few.in_flight(math.inf) == 256 * 16
    assert few.wanted(device) == pytest.approx(5000)
    assert few.time(device) == pytest.approx(8e-12 * 5000 / 4096)


def test_sum_over_few_values_has_too_few_threads_to_saturate_memory():
    device = floors.Device("a card", copy=1e12, clock=1e9, processors=100)
    one = passes.Pass("f", "k", 256, elements=4, reads=4, writes=4, required={}, values=64)
    floor = floors.Floor(one, Counter(issue=40), registers=32, shared=0, subroutines=0)
    size = 64 * 32 * 5 * device.processors  # five warps on each
    assert floor.in_flight(5) == 5 * 32 * 16
    assert floor.time(device, size) == pytest.approx(8e-12 * 5000 / 2560)
    assert floors.share([floor], device, size) == pytest.approx(2560 / 5000)
    assert floor.time(device, 10 * size) == floor.time(device) == 8e-12


@pytest.fixture(scope="module")
def found():
    return floors.floors_of("90")


class TestMachineCode:
    pytestmark = needs_tools

    def test_every_kernel_has_its_path(self, found):
        assert len(found) == len(passes.works())
        for work, own in found:
            assert [f.of for f in own] == list(work.passes)
            for f in own:
                assert all(n > 0 for n in f.issue_counts.values())
                assert all(f.in_flight(f.warps) >= f.wanted(d) for d in floors.DEVICES), work.name

    def test_a_step_loads_nothing_but_its_arrays(self, found):
        """A 16-byte access is issued four times. A tensor's table entries and constants are loaded before the
        loop."""
        steps = [(work, f) for work, own in found for f in own if f.of.file.startswith("step_")]
        assert len(steps) >= 3 * len(passes.RULES)
        for work, f in steps:
            assert f.issue_counts["LSU"] == 4 * sum(f.of.required.values()), work.name

    def test_elements_of_a_layer_are_not_computed_in_double(self, found):
        layers = [f for _, own in found for f in own if f.of.file in ("batch_norm_flat", "dropout")]
        assert len(layers) == 10
        for f in layers:
            assert not f.issue_counts["FP64"], f.of.kernel

    def test_sgd_computes_only_its_formula(self):
        """Per element: w times decay, minus lr times g, times decay; all other arithmetic is predicated."""
        one = next(work.passes[0] for work in passes.works() if work.name == "sgd, float32")
        (own,) = (c for c in cubin.compiled(one.file) if one.kernel in c.kernel.name)
        unguarded, n = [i.opcode for i in own.kernel.path(one.required) if not i.guard], one.elements
        assert [unguarded.count(name) for name in ("FMUL", "FADD", "FFMA", "MUFU")] == [3 * n, n, 0, 0]

    def test_no_work_is_predicted_to_miss_its_target(self, found):
        for work, own in found:
            assert floors.share(own, floors.DEVICES[-1]) >= work.target, work.name
