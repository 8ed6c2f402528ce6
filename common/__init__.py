"""Leaf modules that every other folder may import: options of the command line, safe writing of files."""
