"""Microbenchmarks: how far is this from what the machine can do, and from what else there is?"""
