"""The Score tab: the score of points in the plane, exact and learned, and walks along it (docs/notes.md#n2)."""
