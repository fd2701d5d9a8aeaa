"""The thresholds of the gates; without a library, for what only prints figures beside them."""

ED_RECALL = 0.95
ED_F2 = 0.90
ED_FALSE_NEGATIVE_RATE = 0.05
