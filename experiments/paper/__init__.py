"""The paper's tables and figures, and some beside them, as data: which runs each is made of."""
