"""How well a tracker did: measures against ground truth."""
