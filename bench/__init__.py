"""Microbenchmarks: fastopt compared with the limit of the machine and with other libraries."""
