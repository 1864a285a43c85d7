"""What a multiprocessor of compute capability 9.0 does in a clock, by the kind of instruction.

Rates are results a clock and multiprocessor, of the CUDA C++ Programming Guide's table "Throughput of Native
Arithmetic Instructions", column 9.0. It names operations; which opcodes they are is our reading of the code:

- IMAD.WIDE, a product of 64 bits, counts as one of 32. If it takes two turns, so does that pipe's time.
- F2FP, which rounds to 16 bits, counts as ALU; other conversions stand with the roots, sixteen a clock.
- FCHK, which finds operands that the short way of a division cannot have, is counted with the reciprocals.
- Loads and stores move 32 words a clock, a rate that the guide has for shared memory: 16 bytes take four turns.
- What moves constants or works on uniform registers and the program counter takes an issue and no pipe."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from bench.sass import Instruction

ISSUE = "issue"  # four schedulers, each an instruction of 32 lanes a clock
RATES = {ISSUE: 128, "FP32": 128, "FP16": 128, "ALU": 64, "IMAD": 64, "XU": 16, "FP64": 64, "LSU": 32}

_OPCODES = {
    "FP32": "FADD FMUL FFMA",
    "FP16": "HADD2 HMUL2 HFMA2",  # 256 results, of which an instruction has two a lane
    "ALU": "BMSK F2FP FMNMX FSEL FSET FSETP IABS IADD3 IMNMX ISETP LEA LOP3 MOV P2R PLOP3 PRMT R2P SEL SGXT "
    "SHF VIADD VIADDMNMX VIMNMX",
    "IMAD": "IMAD",
    "XU": "BREV F2F F2I FCHK FLO I2F MUFU POPC",  # conversions, reciprocals, roots
    "FP64": "DADD DFMA DMNMX DMUL DSETP",
    "LSU": "ATOM ATOMG LD LDG LDS RED REDG SHFL ST STG STS",
    "": "ACQBULK BAR BRA BSSY BSYNC CS2R EXIT LDC NOP PREEXIT R2UR S2R S2UR UIADD3 UIMAD UISETP ULDC ULEA "
    "ULOP3 UMOV UPLOP3 USEL USHF WARPSYNC YIELD",
}
_PIPE = {opcode: pipe for pipe, opcodes in _OPCODES.items() for opcode in opcodes.split()}
_WORDS = re.compile(r"\.(64|128)\b")


def turns(way: Iterable[Instruction]) -> Counter[str]:
    """How often a thread's instructions take each pipe."""
    taken: Counter[str] = Counter()
    for one in way:
        pipe = _PIPE[one.opcode.partition(".")[0]]
        taken[ISSUE] += 1
        if pipe:
            wide = _WORDS.search(one.opcode) if pipe == "LSU" else None
            taken[pipe] += int(wide[1]) // 32 if wide else 1
    return taken


def clocks(taken: Counter[str]) -> dict[str, float]:
    """Of a multiprocessor, by pipe."""
    return {pipe: n / RATES[pipe] for pipe, n in taken.items()}
