"""Launches many runs, in sequence or in parallel, on this machine or on a Ray cluster."""
