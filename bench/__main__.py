"""``python -m bench``: see ``bench/README.md``."""

import sys

from bench.threads import confine

threads = confine(sys.argv[1:])  # before any library is imported

try:
    from bench.cli import main
except ModuleNotFoundError as missing:
    if missing.name not in ("ml_dtypes", "psutil", "rich"):
        raise
    print(f"python -m bench needs {missing.name}: pip install '.[bench]'", file=sys.stderr)
    sys.exit(2)

sys.exit(main(sys.argv[1:], threads))
