"""A run: settings, folder, and the session that assembles data, model and method."""
