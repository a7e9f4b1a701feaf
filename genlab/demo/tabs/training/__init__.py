"""The Training tab: what a model draws from the same noise at moments of its training (docs/notes.md#n1-5-reverse)."""
