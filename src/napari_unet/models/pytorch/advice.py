"""What to ask the sender of a file for."""

from __future__ import annotations

HOW_TO_SAVE = 'torch.save(model.state_dict(), "weights.pth")'
