"""How one stage is trained: networks, masks, the hybrid transfer, losses, data and the training loop."""
