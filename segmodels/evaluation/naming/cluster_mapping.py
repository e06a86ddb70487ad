"""Cluster-to-class tables, and how votes become one."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.matching import majority_vote, one_to_one
from segmodels.evaluation.naming.protocol import Protocol


@dataclass(frozen=True)
class ClusterMapping:
    """The class of each cluster; a model that predicts classes needs only the identity.

    Attributes:
        things: (K,) 0-based thing class of each thing cluster, -1 for none.
        stuff: (S,) 0-based stuff class of each stuff cluster, -1 for none.
        thing_votes: (K,) votes for the chosen class; 0 where there is none.
        stuff_votes: (S,) likewise.
    """

    things: NDArray[np.int64]
    stuff: NDArray[np.int64]
    thing_votes: NDArray[np.int64]
    stuff_votes: NDArray[np.int64]

    def counts(self) -> dict[str, int]:
        """Count the clusters that have a class, and the classes that have a cluster."""
        things, stuff = self.things[self.things >= 0], self.stuff[self.stuff >= 0]
        return {
            "things_named": len(things),
            "stuff_named": len(stuff),
            "thing_classes_reached": len(np.unique(things)),
            "stuff_classes_reached": len(np.unique(stuff)),
        }


def fit_mapping(
    thing_votes: NDArray[np.int64], stuff_votes: NDArray[np.int64], protocol: Protocol
) -> ClusterMapping:
    """Choose a class for each cluster, things and stuff separately.

    Args:
        thing_votes: (K, C) votes.
        stuff_votes: (S, D) votes.
        protocol: gives the rule.
    """
    rule = majority_vote if protocol.rule == "majority" else one_to_one
    things, stuff = rule(thing_votes), rule(stuff_votes)
    return ClusterMapping(things, stuff, _chosen(thing_votes, things), _chosen(stuff_votes, stuff))


def _chosen(votes: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    if votes.shape[1] == 0:
        return np.zeros(len(votes), dtype=np.int64)
    taken = votes[np.arange(len(votes)), np.maximum(classes, 0)]
    return np.where(classes >= 0, taken, 0)
