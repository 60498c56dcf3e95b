"""Neighbour soft labels: the student learns what the teacher says of a node's neighbours, without edges."""

from graph2mlp.kernels.neighbour_targets.reference import reference
from graph2mlp.kernels.neighbour_targets.targets import NeighbourTargets, neighbour_kl, neighbour_targets

__all__ = ["NeighbourTargets", "neighbour_kl", "neighbour_targets", "reference"]
