"""Translate the PTX that nvcc generates for the kernels into C++ that runs on the host, one statement per
instruction.

Otherwise the shim runs the source of the kernels as a C++ compiler reads it. The translation is what nvcc
makes of it: after its optimizer, with its flags, each operation as it will be on a device. Only the last
step, from PTX to machine code, is missing.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TYPES = {
    **{f"{kind}{bits}": f"uint{bits}_t" for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": f"int{bits}_t" for bits in (8, 16, 32, 64)},
    "f16": "Half",
    "bf16": "BFloat16",
    "f32": "float",
    "f64": "double",
    "pred": "bool",
}
SPECIAL = {
    f"%{name}.{axis}": f"{variable}.{axis}"
    for name, variable in {
        "tid": "threadIdx",
        "ntid": "blockDim",
        "ctaid": "blockIdx",
        "nctaid": "gridDim",
    }.items()
    for axis in "xyz"
} | {"%cluster_ctarank": "shim::rank", "%cluster_nctarank": "shim::blocks_of_cluster()"}

# For each operation, its value in terms of operands a, b, c, d of the instruction's type T. Of the
# floating-point operations, only those that round to nearest are listed, and none that is fused: others are
# not part of the contract.
INTEGER = {
    "add": "T(a + b)",
    "sub": "T(a - b)",
    "mul.lo": "T(a * b)",
    "mul.hi": "high(a, b)",
    "mul.wide": "Twice<T>(a) * b",
    "mad.lo": "T(a * b + c)",
    "div": "T(a / b)",
    "rem": "T(a % b)",
    "min": "a < b ? a : b",
    "max": "a > b ? a : b",
    "neg": "T(-a)",
    "abs": "T(a < T(0) ? -a : a)",
    "and": "T(a & b)",
    "or": "T(a | b)",
    "xor": "T(a ^ b)",
    "not": "std::is_same_v<T, bool> ? T(!a) : T(~a)",
    "popc": "std::popcount(a)",
    "shl": "left(a, b)",
    "shr": "right(a, b)",
    "bfi": "insert(a, b, c, d)",
    "prmt": "permute(a, b, c)",
    "selp": "c ? a : b",
    "mov": "a",
    "setp.eq": "a == b",
    "setp.ne": "a != b",
    "setp.lt": "a < b",
    "setp.le": "a <= b",
    "setp.gt": "a > b",
    "setp.ge": "a >= b",
}
FLOATING = {
    "add.rn": "with_one_nan(a + b)",
    "sub.rn": "with_one_nan(a - b)",
    "mul.rn": "with_one_nan(a * b)",
    "div.rn": "with_one_nan(a / b)",
    "sqrt.rn": "with_one_nan(std::sqrt(a))",
    "rcp.rn": "with_one_nan(T(1) / a)",
    "min": "with_one_nan(least(a, b))",
    "max": "with_one_nan(most(a, b))",
    "neg": "-a",
    "abs": "std::fabs(a)",
    "selp": "c ? a : b",
    "mov": "a",
    # Ordered comparisons; those with u are also true for NaN.
    "setp.eq": "a == b",
    "setp.ne": "a < b || a > b",
    "setp.lt": "a < b",
    "setp.le": "a <= b",
    "setp.gt": "a > b",
    "setp.ge": "a >= b",
    "setp.equ": "!(a < b || a > b)",
    "setp.neu": "a != b",
    "setp.ltu": "!(a >= b)",
    "setp.leu": "!(a > b)",
    "setp.gtu": "!(a <= b)",
    "setp.geu": "!(a < b)",
    "setp.num": "a == a && b == b",
    "setp.nan": "a != a || b != b",
}
# Operands whose type differs from the instruction's.
OTHER = {
    "shl": {"b": "u32"},
    "shr": {"b": "u32"},
    "bfi": {"c": "u32", "d": "u32"},
    "selp": {"c": "pred"},
}

_ROOM = re.compile(r"\.extern \.shared \.align 16 \.b8 (\w+)\[\];")
_SHARED = re.compile(r"\.shared \.align (\d+) \.(\w+) (\w+)(?:\[(\d+)\])?;")
_REGISTERS = re.compile(r"\.reg \.(\w+)\s+(%\w+)<(\d+)>;")
_KERNEL = re.compile(r"(?:\.visible )?\.entry (\w+)\((.*?)\)[^{;]*\n\{(.*?)\n\}", re.DOTALL)
_PARAMETER = re.compile(r"\.param .*?(\w+)(?:\[\d+\])?(?:,|$)", re.MULTILINE)
_INSTRUCTION = re.compile(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*?);")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^]]*\]|[^,\s]+")
_ADDRESS = re.compile(r"\[([%\w]+)(?:\+(-?\d+))?\]")
_FLOAT = re.compile(r"0([fd])([0-9A-F]+)")


def translate(text: str, table: str) -> str:
    """Return C++ in which an array called `table` has an entry for each kernel of a PTX module."""
    shared, room = {}, 0
    for align, kind, name, count in _SHARED.findall(text):
        room = -(-room // int(align)) * int(align)
        shared[name] = room
        room += _size(kind) * int(count or 1)
    room = -(-room // 16) * 16
    if launched := _ROOM.search(text):  # the launch's dynamic memory follows
        shared[launched[1]] = room
    kernels = _KERNEL.findall(text)
    if len(kernels) != text.count(".entry "):
        raise ValueError("a kernel could not be read")
    functions = [
        "\n".join(Kernel(f"kernel_{i}", _PARAMETER.findall(parameters), shared, body).lines())
        for i, (_, parameters, body) in enumerate(kernels)
    ]
    entries = [f'    {{"{name}", kernel_{i}}},' for i, (name, *_) in enumerate(kernels)]
    return "\n".join(
        [
            '#include "ptx.h"',
            "namespace {",
            "using namespace ptx;",
            f"alignas(16) char shared[shim::kMostBlocks][{room} + shim::kMostShared];",
            *functions,
            "}  // namespace",
            f'extern "C" const ptx::Entry {table}[] = {{',
            *entries,
            "    {nullptr, nullptr},",
            "};",
            "",
        ]
    )


def _size(kind: str) -> int:
    return int(kind[1:]) // 8


@dataclass
class Kernel:
    name: str
    parameters: list[str]
    shared: dict[str, int]
    body: str

    def lines(self) -> Iterator[str]:
        yield f"void {self.name}(const void* const* parameters) {{"
        for kind, prefix, count in _REGISTERS.findall(self.body):
            names = ", ".join(f"{prefix[1:]}{i}" for i in range(1, int(count)))
            if names:
                yield f"  {TYPES[kind]} {names};"
        for line in map(str.strip, self.body.splitlines()):
            if line.endswith(":"):
                yield f"{line[1:]};" if line[0] == "$" else line
            elif line and not line.startswith((".", "//")):
                yield f"  {self.statement(line)}"
        yield "}"

    def statement(self, line: str) -> str:
        found = _INSTRUCTION.fullmatch(line)
        if not found:
            raise ValueError(f"PTX that is not known here: {line}")
        negated, predicate, name, operands = found.groups()
        did = self.instruction(name.split("."), _OPERAND.findall(operands), line)
        if predicate:
            return f"if ({'!' if negated else ''}{predicate[1:]}) {{ {did} }}"
        return f"{{ {did} }}"

    def instruction(self, name: list[str], operands: list[str], line: str) -> str:
        match name:
            case ["bra", *_]:
                return f"goto {operands[0][1:]};"
            case ["ret"]:
                return "return;"
            case ["griddepcontrol", "wait" | "launch_dependents"]:
                return ";"  # no kernel starts before the previous one has ended
            case ["prefetch", *_]:
                return ";"
            case ["bar", "sync"] if operands == ["0"]:
                return "shim::sync_block();"
            case ["barrier", "cluster", "arrive"]:
                return "shim::arrive_at_cluster();"
            case ["barrier", "cluster", "wait"]:
                return "shim::wait_for_cluster();"
            case ["mapa", "shared::cluster", "u32"]:
                given = (self.get(operand, "u32") for operand in operands[1:])
                return self.put(operands[0], f"of_block({', '.join(given)})")
            case ["ld" | "st" as way, *modifiers, kind]:
                return self.move(way, modifiers, kind, operands)
            case ["cvta", *_]:
                return self.put(operands[0], self.get(operands[1], "u64"))
            case ["cvt", *_, to, source]:
                value = self.get(operands[1], source)
                return self.put(operands[0], f"convert<{TYPES[to]}>({value})")
            case ["shfl", "sync", "down", "b32"]:
                to, _, predicate = operands[0].partition("|")
                given = ", ".join(self.get(operand, "u32") for operand in operands[1:])
                return f"{predicate[1:]} = shuffle_down({to[1:]}, {given});"
            case ["vote", "sync", "ballot", "b32"]:
                given = f"{self.get(operands[2], 'u32')}, {operands[1][1:]}"
                return self.put(operands[0], f"__ballot_sync({given})")
            case ["atom", "global", "min", kind]:
                place = self.place(operands[1], kind, 1, "global")
                return self.put(operands[0], f"atomic_min({place}, {self.get(operands[2], kind)})")
            case ["red", "release", "gpu", "global", "add", kind]:
                place = self.place(operands[0], kind, 1, "global")
                return f"*{place} += {self.get(operands[1], kind)};"
            case ["mov", "b32" | "b64"] if operands[1][0] == "{":
                return f"pack({operands[0][1:]}, {_names(operands[1])});"
            case ["mov", "b32" | "b64"] if operands[0][0] == "{":
                return f"unpack({operands[1][1:]}, {_names(operands[0])});"
            case [*operation, kind]:
                return self.compute(".".join(operation), kind, operands, line)
        raise ValueError(f"an instruction that is not known here: {line}")

    def compute(self, operation: str, kind: str, operands: list[str], line: str) -> str:
        table = FLOATING if kind in ("f32", "f64") else INTEGER
        if operation not in table:
            raise ValueError(f"an instruction that is not known here: {line}")
        kinds = OTHER.get(operation, {})
        given = [
            f"const auto {letter} = {self.get(operand, kinds.get(letter, kind))};"
            for letter, operand in zip("abcd", operands[1:], strict=False)
        ]
        given.insert(0, f"using T = {TYPES[kind]};")
        return " ".join([*given, self.put(operands[0], table[operation])])

    # ---- operands ----

    def get(self, operand: str, kind: str) -> str:
        """Return an expression that reads a register or a number as this type."""
        if operand in SPECIAL:
            return SPECIAL[operand]
        if operand[0] == "%":
            return f"as<{TYPES[kind]}>({operand[1:]})"
        if number := _FLOAT.fullmatch(operand):
            bits = {"f": "uint32_t", "d": "uint64_t"}[number[1]]
            return f"std::bit_cast<{TYPES[kind]}>({bits}(0x{number[2]}u))"
        if operand in self.parameters:
            return f"uint64_t(parameters[{self.parameters.index(operand)}])"
        if operand in self.shared:
            return f"{TYPES[kind]}({self.shared[operand]})"
        return f"{TYPES[kind]}({operand}{'u' if int(operand, 0) >= 2**63 else ''})"

    def put(self, register: str, value: str) -> str:
        return f"{register[1:]} = as<decltype({register[1:]})>({value});"

    def place(self, operand: str, kind: str, count: int, space: str) -> str:
        """Return a pointer to `count` values of a type, as an expression. An address without a named space is
        in device memory."""
        base, offset = _ADDRESS.fullmatch(operand).groups()
        where = f"{self.get(base, 'u32' if space.startswith('shared') else 'u64')} + {offset or 0}"
        if space == "shared":
            return f"at<{TYPES[kind]}, {count}>(uint64_t(shared[shim::rank]) + {where})"
        if space == "shared::cluster":
            return f"at<{TYPES[kind]}, {count}>(in_cluster(shared, {where}))"
        return f"{'at' if space == 'param' else 'global'}<{TYPES[kind]}, {count}>({where})"

    def move(self, way: str, modifiers: list[str], kind: str, operands: list[str]) -> str:
        operand, other = operands[::-1] if way == "ld" else operands
        registers = _list(other)
        spaces = ("shared", "shared::cluster", "param")
        space = next((m for m in modifiers if m in spaces), "global")
        place = self.place(operand, kind, len(registers), space)
        if way == "ld":
            done = [self.put(r, f"from[{i}]") for i, r in enumerate(registers)]
            return f"const auto* const from = {place}; {' '.join(done)}"
        done = [f"to[{i}] = {self.get(r, kind)};" for i, r in enumerate(registers)]
        return f"auto* const to = {place}; {' '.join(done)}"


def _list(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{}").split(",")]


def _names(operand: str) -> str:
    return ", ".join(register[1:] for register in _list(operand))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="C++ of a PTX module")
    parser.add_argument("ptx", type=Path)
    parser.add_argument("table", help="the name of the array of its kernels")
    parser.add_argument("-o", dest="out", type=Path, required=True)
    args = parser.parse_args()
    args.out.write_text(translate(args.ptx.read_text(), args.table))
