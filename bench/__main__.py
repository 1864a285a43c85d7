"""``python -m bench``: see ``bench/README.md``."""

import sys

from bench.threads import confine

threads = confine(sys.argv[1:])

from bench.cli import main  # noqa: E402: now libraries may be imported

sys.exit(main(sys.argv[1:], threads))
