"""``python -m bench``: see ``bench/README.md``."""

import sys

from bench.threads import confine

threads = confine(sys.argv[1:])  # before any library is imported

from bench.cli import main  # noqa: E402

sys.exit(main(sys.argv[1:], threads))
