"""Leaf modules that every other folder may import: options, errors, safe writing of files."""
