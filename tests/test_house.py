"""The source follows the layering in CONTRIBUTING.md: includes and imports point downward only, forbidden
constructs are absent, and no code for one instruction set can reach a CPU that lacks it.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CSRC, PYTHON = ROOT / "csrc", ROOT / "python" / "fastopt"
CMAKE = (ROOT / "CMakeLists.txt").read_text()
CMAKE_CUDA = (CSRC / "cuda" / "CMakeLists.txt").read_text()
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".cpp", ".hpp", ".cu", ".cuh"})

# The folders from which the files of each folder may include.
LAYERS = {
    "core": {"core"},
    "rules": {"core", "rules"},
    "cpu": {"core", "rules", "cpu"},
    "cuda": {"core", "rules", "cuda"},
    "bind": {"core", "rules", "cpu", "bind"},
}

# A Python module imports only modules listed before it.
MODULES = (
    "_core",
    "_typing",
    "_options",
    "_checks",
    "_hyperparams",
    "_array_utils",
    "_params",
    "_config",
    "_ieee_math",
    "_random",
    "_array_api",
    "_state_dict",
    "_param_copies",
    "_metric_monitor",
    "_norms",
    "_batch_norm",
    "_dropout",
    "_generator",
    "_functional_step",
    "functional",
    "layers",
    "_group",
    "_concurrency",
    "_optimizer",
    "optim",
    "penalties",
    "init",
    "schedules",
    "_early_stopping",
    "_ema",
    "checkpoint",
    "data",
    "__init__",
    "__main__",
)

# Headers without functions of external linkage that a compiler might emit. A header may be added if `nm` finds
# no weak symbol; <algorithm>, <functional>, <vector> and similar ones may not.
PLAIN_HEADERS = {
    "arm_neon.h",
    "cfloat",
    "cstddef",
    "cstdint",
    "immintrin.h",
    "limits",
    "string.h",
    "type_traits",
}

# Maximum number of lines of a file. Docstrings in Python files do not count, because they are read as printed.
MAX_LINES = 280


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def own_includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*"(.*)"', path.read_text(), re.MULTILINE)


def library_includes(path: Path) -> list[str]:
    return re.findall(r"^\s*#\s*include\s*<(.*)>", path.read_text(), re.MULTILINE)


def with_includes(path: Path) -> set[Path]:
    """Return a file and all our own files that it includes, directly or indirectly."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        found.add(path := waiting.pop())
        waiting += [CSRC / include for include in own_includes(path) if CSRC / include not in found]
    return found


def code_of(path: Path) -> str:
    """Return a source file without its comments."""
    return re.sub(r"//.*", "", path.read_text())


# ---- layers ----


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_includes_follow_the_layers(path: Path) -> None:
    layer = path.relative_to(CSRC).parts[0]
    assert layer in LAYERS, f"csrc/{layer} has no place in LAYERS"
    # The only file of the second extension module, which passes the CUDA engine to the first.
    allowed = {"cuda"} if path.name == "cuda_module.cpp" else LAYERS[layer]
    for include in own_includes(path):
        assert (CSRC / include).exists(), f'"{include}" is not written from csrc/'
        assert include.split("/")[0] in allowed


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_system_headers_are_included_only_in_their_layer(path: Path) -> None:
    layer = path.relative_to(CSRC).parts[0]
    for header in library_includes(path):
        if header.startswith(("pybind11", "Python.h", "numpy")):
            assert layer == "bind"
        if header.startswith("cuda"):
            assert layer == "cuda"
        if header in {"omp.h", "arm_neon.h", "immintrin.h", "xmmintrin.h", "pthread.h"}:
            assert layer == "cpu" or path.name == "float_mode.hpp"  # both engines need it


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_math_functions_are_called_only_in_rules(path: Path) -> None:
    if path.relative_to(CSRC).parts[0] != "rules":
        assert not re.search(r"\b(sqrt|rsqrt|pow|exp|log|tanh)f?\(", code_of(path))


def imports_of(path: Path) -> set[str]:
    """Return what a module imports at run time, such as ``numpy`` or ``fastopt.optim``."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            found |= {f"{source}.{a.name}" for a in node.names} if source == "fastopt" else {source}
        waiting += ast.iter_child_nodes(node)
    return found


@pytest.mark.parametrize("path", sorted(PYTHON.rglob("*.py")), ids=name)
def test_python_imports_follow_the_layers(path: Path) -> None:
    first, *inner = path.relative_to(PYTHON).parts
    place = MODULES.index(first.removesuffix(".py"))
    within = [first] if inner else []  # the files of a folder may import each other
    for imported in imports_of(path):
        package, _, module = imported.partition(".")
        if package in {"array_api_compat", "ml_dtypes"}:
            assert path.stem == "_array_api", "an optional package, asked for in one place"
        elif package != "fastopt":
            assert package in {*sys.stdlib_module_names, "numpy"}, "NumPy is the only dependency"
        elif path.stem != "__main__":
            assert module.partition(".")[0] in [*MODULES[:place], *within]


# ---- forbidden constructs ----


def test_build_keeps_ieee_arithmetic_and_names_its_sources() -> None:
    host, cuda = (re.sub(r"#.*", "", text) for text in (CMAKE, CMAKE_CUDA))
    forbidden = (
        "fast-math",
        "fast_math",
        "unsafe-math",
        "Ofast",
        "march=native",
        "GLOB",
        "fp-contract=fast",
    )
    for text in (*forbidden, "fmad=true", "ftz=true"):
        assert text not in (host + cuda).replace("-fno-fast-math", "")
    for command in ("compile", "link"):  # regardless of CXXFLAGS
        assert re.search(rf"target_{command}_options\(fastopt_options [^)]*-fno-fast-math", host)
    assert "-ffp-contract=off" in host
    for ieee in ("-fmad=false", "-ftz=false", "-prec-div=true", "-prec-sqrt=true", "-ffp-contract=off"):
        assert ieee in cuda
    listed = set(re.findall(r"csrc/\S+\.cpp", host + cuda))
    assert listed == {name(path) for path in SOURCES if path.suffix == ".cpp"}
    devices = re.findall(r"^  (\w+\.cu)\b", cuda, re.MULTILINE)
    assert devices == sorted(path.name for path in SOURCES if path.suffix == ".cu")


@pytest.mark.parametrize(
    ("flags", "compiles"),
    [
        ("-fno-math-errno -fno-trapping-math", True),
        ("-ffast-math", False),
        ("-ffinite-math-only", False),
        ("-ffast-math -fno-fast-math", True),
    ],
)
def test_fast_math_flags_do_not_compile(flags: str, compiles: bool) -> None:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        pytest.skip("needs a C++ compiler")
    command = [
        compiler,
        *flags.split(),
        "-x",
        "c++",
        "-fsyntax-only",
        str(CSRC / "core/float_mode.hpp"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == compiles, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_sources_do_not_relax_ieee_arithmetic(path: Path) -> None:
    forbidden = ("GCC optimize", "fast-math", "FP_CONTRACT", "__attribute__((optimize", "std::fma")
    on_device = ("__fdividef", "__frcp", "__fmaf", "__fma_", "__fsqrt_approx", "atomicAdd(")
    for text in (*forbidden, *on_device):
        assert text not in code_of(path)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_sources_include_no_iostreams(path: Path) -> None:
    """Their locales are global to the process: with two copies of libstdc++ in one process, reading a number
    aborts it."""
    streams = {"iostream", "fstream", "sstream", "ostream", "istream", "locale"}
    assert not streams & set(library_includes(path))


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("csrc", "python", "bench", "docs", "examples", "tools")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in {".cpp", ".hpp", ".cu", ".cuh", ".py"}
    ],
    ids=name,
)
def test_files_are_a_page_or_two(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".py":
        text = re.sub(r'^\s*r?""".*?"""$', "", text, flags=re.MULTILINE | re.DOTALL)
    lines = len(text.splitlines())
    assert lines <= MAX_LINES


# ---- code compiled for one instruction set ----


# The files that are compiled once for each instruction set.
KERNELS = sorted((CSRC / "cpu").glob("kernels_*.cpp"))


@pytest.mark.parametrize("path", sorted(set().union(*map(with_includes, KERNELS))), ids=name)
def test_kernels_include_only_plain_headers(path: Path) -> None:
    assert set(library_includes(path)) <= PLAIN_HEADERS


def march_flags() -> dict[str, str]:
    """Return the instruction sets that CMakeLists.txt builds for this machine, each with its -march flag."""
    for section in re.split(r"\b(?:else)?if\(CMAKE_SYSTEM_PROCESSOR MATCHES ", CMAKE)[1:]:
        machine = re.match(r'"(.*?)"', section)
        if machine and re.match(machine[1], platform.machine()):
            return dict(re.findall(r"set\(march_(\w+) (\S+)\)", section))
    return {}


def compile_flags() -> list[str]:
    """Return the flags that determine what a file computes; its speed does not matter here."""
    options = re.search(r"fastopt_options INTERFACE \$\{optimise\}(.*?)\$", CMAKE, re.DOTALL)
    assert options, "CMakeLists.txt no longer gives fastopt_options its flags in one place"
    return ["-O1", *options[1].split()]


@pytest.mark.parametrize("path", KERNELS, ids=name)
@pytest.mark.parametrize("isa", march_flags())
def test_kernel_objects_define_one_table_and_no_weak_symbol(
    path: Path, isa: str, tmp_path: Path
) -> None:
    """The linker keeps one copy of a weak symbol. If that were the AVX-512 one, older CPUs would crash."""
    compiler, nm = shutil.which(os.environ.get("CXX", "c++")), shutil.which("nm")
    if not compiler or not nm:
        pytest.skip("needs a C++ compiler and nm")
    built = tmp_path / "kernels.o"
    command = [compiler, "-std=c++20", "-fPIC", "-fvisibility=hidden", f"-I{CSRC}", *compile_flags()]
    command += [f"-march={march_flags()[isa]}", f"-DFASTOPT_ISA={isa}", "-c", "-o", str(built)]
    subprocess.run([*command, str(path)], check=True)
    lines = subprocess.run([nm, "-C", built], check=True, text=True, stdout=subprocess.PIPE).stdout
    symbols = [re.match(r"[\da-f ]{16} (\w) (.*)", line) for line in lines.splitlines()]
    weak = [s[2] for s in symbols if s and s[1] in "WwVvu"]
    defined = [s[2] for s in symbols if s and s[1].isupper() and s[1] != "U"]
    assert not weak
    assert len(defined) == 1
    assert re.fullmatch(rf"fastopt::cpu::\w+_{isa}", defined[0])
