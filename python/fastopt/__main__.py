"""``python -m fastopt``: print the configuration."""

import argparse
import os
import sys

from fastopt import show_config

argparse.ArgumentParser(
    prog="python -m fastopt", description="Print the configuration of fastopt."
).parse_args()
try:
    show_config()
    sys.stdout.flush()
except BrokenPipeError:  # as in `python -m fastopt | head -3`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    sys.exit(1)
