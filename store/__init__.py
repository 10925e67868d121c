"""Tables and queries in PostgreSQL. The rows are the truth; a message of the broker is only a wake-up."""
