"""``python -m fastopt``: print the configuration."""

from fastopt import show_config

show_config()
