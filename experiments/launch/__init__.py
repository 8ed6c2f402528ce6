"""Many runs, one after another or side by side: on this machine, or on those of a Ray cluster."""
