"""A process of its own that publishes artifacts and makes exports."""
