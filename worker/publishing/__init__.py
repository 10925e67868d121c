"""Publishing artifacts and making exports, in a process of its own."""
