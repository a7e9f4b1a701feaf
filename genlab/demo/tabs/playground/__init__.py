"""The Playground: draw points, train a model on them, run it both ways (docs/notes.md#n1-4, #n1-5 and #n2)."""
