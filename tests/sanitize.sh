#!/usr/bin/env bash
# Builds the compiled module under AddressSanitizer and UndefinedBehaviorSanitizer, and runs the tests on it.
#
#     tests/sanitize.sh [pytest arguments]
#
# Needs g++ and a Python (PYTHON, else python3) with the packages of the test extra. Tests of Python code, other
# libraries and the compiler are left out, because they do not exercise our C++ code, and so are tests of the size of
# the process, because AddressSanitizer delays the release of freed memory.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A fastopt of its own, in a folder that comes first on the path. Debug keeps the names in a report.
"$python" -m pip install --quiet --target "$work/site" --no-deps "$root" \
  --config-settings=cmake.build-type=Debug \
  --config-settings=cmake.define.FASTOPT_SANITIZE=address,undefined \
  --config-settings=cmake.define.FASTOPT_CUDA=OFF
# The CUDA engine on the host shim, likewise.
export FASTOPT_SHIM_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1"

# Python is not built with the sanitizers, so they must be loaded before it.
export LD_PRELOAD
for library in asan ubsan stdc++; do
  LD_PRELOAD=${LD_PRELOAD:+$LD_PRELOAD:}$(LD_PRELOAD='' g++ -print-file-name=lib$library.so)
done
# Python leaks by design. A wrong address or an undefined operation ends the run.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export PYTHONPATH=$work/site

cd "$root"
"$python" - "$work" <<'CHECK'
import pathlib, sys
from fastopt import _core

module = pathlib.Path(_core.__file__)
assert module.is_relative_to(sys.argv[1]), f"the tests would run on {module}"
assert b"__asan_init" in module.read_bytes() and b"__ubsan_handle" in module.read_bytes()
CHECK
# One instruction set: the code that is specific to each only operates on registers (cpu/philox_simd.hpp).
FASTOPT_ISA=$("$python" -c 'from fastopt import _core; print(_core.isa())')
export FASTOPT_ISA
"$python" -m pytest -q "$@" --ignore=tests/test_house.py --ignore=tests/test_torch.py \
  --ignore=tests/test_coming_from.py --ignore=tests/test_docs.py \
  --ignore=tests/test_examples.py --ignore-glob='tests/test_digits_*.py' \
  --ignore=tests/test_pictures.py --ignore=tests/test_bench.py \
  --ignore=tests/test_typing.py --ignore=tests/test_cuda_shim.py --ignore=tests/test_cuda_races.py --ignore=tests/test_cuda_ptx.py \
  --ignore=tests/test_floors.py --ignore=tests/test_gpu_check.py --ignore=tests/test_known_mistakes.py \
  --ignore=tests/test_checkpoint.py --ignore-glob='tests/test_augment_*.py' \
  --deselect=tests/test_memory.py::test_ten_thousand_steps_leak_nothing \
  --deselect=tests/test_batch_norm_buffers.py::test_passes_over_16_million_elements_make_no_array
