"""The protocol and its statistics: the choice, the leaderboard, what may be said of the arms. No torch, no Ray."""
