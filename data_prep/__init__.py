"""Prepares raw media into samples on disk, and reads them back."""
