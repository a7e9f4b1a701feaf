"""The Playground: draw points, train a model on them, see it go forward and back (notes 1.4, 1.5 and 2)."""
