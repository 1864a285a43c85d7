"""Instruction throughput of a multiprocessor of compute capability 9.0, by pipe.

Rates are results per clock cycle and multiprocessor, from the CUDA C++ Programming Guide's table "Throughput of
Native Arithmetic Instructions", column 9.0. The table names operations; the opcodes assigned to them are our
interpretation of the code:

- IMAD.WIDE, a 64-bit product, counts as a 32-bit one. If it is issued twice, the time of its pipe doubles.
- F2FP, which rounds to 16 bits, counts as ALU. Other conversions count with the roots, sixteen per cycle.
- FCHK, which finds operands that the fast path of a division cannot handle, counts with the reciprocals.
- Loads and stores move 32 words per cycle, the guide's rate for shared memory: 16 bytes are issued four times.
- Moves of constants and operations on uniform registers or the program counter take an issue slot and no pipe.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from bench.sass import Instruction

ISSUE = "issue"  # four schedulers, each of which issues an instruction of 32 lanes per cycle
RATES = {ISSUE: 128, "FP32": 128, "FP16": 128, "ALU": 64, "IMAD": 64, "XU": 16, "FP64": 64, "LSU": 32}

_OPCODES = {
    "FP32": "FADD FMUL FFMA",
    "FP16": "HADD2 HMUL2 HFMA2",  # 256 results, two per lane and instruction
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


def issue_counts(path: Iterable[Instruction]) -> Counter[str]:
    """Count how often a thread's instructions are issued to each pipe."""
    counts: Counter[str] = Counter()
    for one in path:
        pipe = _PIPE[one.opcode.partition(".")[0]]
        counts[ISSUE] += 1
        if pipe:
            wide = _WORDS.search(one.opcode) if pipe == "LSU" else None
            counts[pipe] += int(wide[1]) // 32 if wide else 1
    return counts


def cycles(counts: Counter[str]) -> dict[str, float]:
    """Return the clock cycles of a multiprocessor per thread, by pipe."""
    return {pipe: n / RATES[pipe] for pipe, n in counts.items()}
