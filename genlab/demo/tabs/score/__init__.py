"""The Score tab: the score of points in the plane, exact and learned, and walks along it (notes 2, completed)."""
