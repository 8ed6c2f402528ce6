"""A run: its settings, its folder, and its data, model and method put together."""
