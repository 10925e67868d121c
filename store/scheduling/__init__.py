"""Workers, their devices, the leases on them, and the pure planner."""
