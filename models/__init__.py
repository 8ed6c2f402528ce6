"""Encoders and the classifier that fuses them."""
