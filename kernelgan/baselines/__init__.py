"""What to compare a generator with: nulls, merges, readouts, and networks trained by gradient.

The rows that have a role in every comparison are named here, and nowhere else.
"""

PARENTS = ("attribute_only", "object_only")
"""The attribute's and the object's zoo as they are; the novelty of every method is taken against them."""

FLOOR = "random"
"""Random networks: what every generator must beat, and where shares begin unless `CHANCE` is above them."""

CHANCE = 0.5
"""The figure of merit of one score for every image: no share begins below it."""

LEAST_WAY = 0.05
"""From the floor to the reference; where there is less, no share of the way is given."""

YARDSTICK = "and_ensemble"
"""Both parents run, at twice the parameters: what every method is compared with."""

REFERENCE = "trained_on_conjunction"
"""Networks trained on the conjunction itself: where shares end. Not a bound: the ensemble may be above."""
