"""The Sample tab: new pictures, step by step (docs/notes.md#n1-1 and #n1-5-reverse)."""
