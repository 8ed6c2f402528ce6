"""Generators of small raw media trees: the embedded demo set AV-Digits and the test fixtures."""
