"""How ranks share a step's work: one module per engine, and the optimizer that they step."""
