"""The paper's tables and figures, and additional ones, as data: which runs each one needs."""
