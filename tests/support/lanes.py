"""Lanes of two shards, for the tests of order."""

from cluster_layer.lanes import GROUP, INBOX, Lane

A_INBOX, A_GROUP = Lane("a", INBOX), Lane("a", GROUP)
B_INBOX, B_GROUP = Lane("b", INBOX), Lane("b", GROUP)
LANES = (A_INBOX, A_GROUP, B_INBOX, B_GROUP)
LIFE = "life"
WINDOW_S = 60.0
