"""Finished runs as tables, figures and the report."""
