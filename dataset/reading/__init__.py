"""Files of examples, from bytes to rows."""
