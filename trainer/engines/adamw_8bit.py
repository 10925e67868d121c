"""AdamW with its moments in 8 bits."""

from typing import Any

import bitsandbytes.optim


class AdamW8bit(bitsandbytes.optim.AdamW8bit):
    def load_state_dict(self, state_dict: dict[str, Any], move_to_device: bool = True) -> None:
        """Also from a state that was saved as tensors: its kernels want the number of steps as a plain number."""
        super().load_state_dict(state_dict, move_to_device)
        for state in self.state.values():
            state["step"] = int(state["step"])
