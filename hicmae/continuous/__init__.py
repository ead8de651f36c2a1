"""Valence and arousal at every moment of long videos: leader-follower attentive fusion (Zhang et al., ICCVW 2021)."""
