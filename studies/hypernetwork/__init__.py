"""A generator that is a network itself: weights in, weights out. See docs/learned.md."""
