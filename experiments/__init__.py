"""The runs behind each table and figure, run folders, launching, and reports."""
