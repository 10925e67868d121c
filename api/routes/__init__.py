"""One file per noun; a route is one call."""
