"""HTTP itself: bodies, ranges, ids, idempotency, and bounds on what a client may take."""
