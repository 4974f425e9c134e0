"""The original (Jain, "mlusingml", 2024), repeated from its own weights by its own protocol, with nulls."""
