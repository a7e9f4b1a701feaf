"""genlab: generative models from the lecture notes, to learn, train, measure and show."""

__version__ = "0.1.0"
