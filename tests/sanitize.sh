#!/usr/bin/env bash
# Builds the compiled module under AddressSanitizer and UndefinedBehaviorSanitizer, and runs the tests on it.
#
#     tests/sanitize.sh [pytest arguments]
#
# Takes g++, and a Python (PYTHON, else python3) that has fastopt with the test extra installed: for its
# dependencies, the package itself is the one built here. What would say nothing of our own code is left out.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The package, with the module built here, in a folder that comes first on the path.
"$python" -m pip install --quiet --target "$work/site" --no-deps "$root" \
  --config-settings=cmake.define.FASTOPT_SANITIZE=address,undefined \
  --config-settings=cmake.build-type=Debug \
  --config-settings=install.strip=false

# Python itself is not built with the sanitizers, so they must be loaded before it.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so):$(g++ -print-file-name=libubsan.so):$(g++ -print-file-name=libstdc++.so)"
# Python leaks by design. A wrong address or an undefined operation ends the run.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export PYTHONPATH="$work/site" HYPOTHESIS_PROFILE=small

cd "$root"
"$python" - <<'CHECK'
import ctypes, fastopt._core

assert "/site/fastopt/" in fastopt._core.__file__, fastopt._core.__file__
module = ctypes.CDLL(fastopt._core.__file__)
assert hasattr(module, "__asan_init"), "the module is not built with AddressSanitizer"
CHECK
"$python" -m pytest -q -p no:cacheprovider "$@"
