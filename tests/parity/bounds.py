"""How far vectors of a graph built from a checkpoint may be from its class in float64.

Per case at most the floor, or twice the distance of the class in float32 (rounding differs between operators), and
never above the ceiling; over all cases 1.5 times that distance in the mean. Components of vectors of length 1.
"""

FLOOR, TIMES, MEAN_TIMES, CEILING = 5e-6, 2.0, 1.5, 1e-4
