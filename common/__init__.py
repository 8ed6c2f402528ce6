"""Leaf modules that every other package may import: options, errors, atomic file writing."""
