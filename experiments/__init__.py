"""Which runs make which table or figure; run folders; launching many runs."""
