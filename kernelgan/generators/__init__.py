"""Families of generators: from two populations of parents, new networks."""
