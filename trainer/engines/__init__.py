"""How ranks share the work of a step: one module per engine, and the optimizer that they step."""
