"""Tables, figures and the report from finished runs."""
