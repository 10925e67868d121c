"""What runs beside the requests: event streams, checks of datasets, webhooks."""
