"""What every process of the service needs: settings, logs, the broker and private files."""
