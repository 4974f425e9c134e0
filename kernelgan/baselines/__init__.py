"""What to compare a generator with: nulls, merges, readouts, and networks trained by gradient.

The rows that have a role in every comparison are named here, and nowhere else.
"""

PARENTS = ("attribute_only", "object_only")
"""The attribute's and the object's zoo as they are; the novelty of every method is taken against them."""

FLOOR = "random"
"""Random networks: what every generator must beat, and where shares begin."""

YARDSTICK = "and_ensemble"
"""Both parents run, at twice the parameters: what every method is compared with."""

CEILING = "trained_on_conjunction"
"""Networks trained on the conjunction itself: where shares end."""
